"""A classifier that reads a sentence encoder as that encoder was trained to be read."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput


class PooledClassifier(nn.Module):
    """Encoder, pooling over the unmasked tokens, optional unit norm, linear head started at zero.

    With ``normalise`` the pooled vector has norm sqrt(width), so that features have unit scale.
    """

    def __init__(self, backbone: nn.Module, classes: int, pooling: str, normalise: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = backbone.config
        self.pooling, self.normalise = pooling, normalise
        self.classifier = nn.Linear(self.config.hidden_size, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **ignored: object
    ) -> SequenceClassifierOutput:
        """Return logits [rows, classes] for tokens [rows, length]."""
        return SequenceClassifierOutput(
            logits=self.classifier(self.features(input_ids, attention_mask))
        )

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return what the head reads, [rows, width]."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        return pooled(output.last_hidden_state, attention_mask, self.pooling, self.normalise)


def pooled(hidden: Tensor, mask: Tensor, pooling: str, normalise: bool = False) -> Tensor:
    """Return one float32 vector for each text, [rows, width], of states [rows, length, width].

    ``mask`` [rows, length] is 1 where a token stands; ``pooling`` is mean, cls or last.
    """
    hidden = hidden.float()
    if pooling == "mean":
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        found = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    elif pooling == "cls":
        found = hidden[:, 0]
    else:
        last = mask.cumsum(1).argmax(1)
        found = hidden[torch.arange(len(hidden), device=hidden.device), last]
    if normalise:
        found = nn.functional.normalize(found, dim=-1) * found.shape[-1] ** 0.5
    return found
