"""Rewards that are linear in what a frozen backbone makes of a text; the features are shared.

A text's features are a function of its tokens alone, to the byte, whatever is read beside it: it
is padded to its own length rounded up (measured on CPUs, as for slots; not promised by torch).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.alignment import reward_files
from airtune.learning.alignment.losses import pairwise
from airtune.learning.backbone import Backbone
from airtune.learning.data.examples import Examples
from airtune.learning.pooled import PooledClassifier, pooled

_ROWS = 64  # of a pass
_BUCKET = 8  # lengths are rounded up to a multiple of this
_ANY = 2**31  # tokens, for models without a limit
_HEAD = "classifier.weight"  # as `PooledClassifier` calls it
_RELATIVE = 1e-9  # deviations below are rounding


class Accuracy(NamedTuple):
    """The share of pairs that rewards order rightly, its standard error, and how many pairs."""

    share: float
    error: float
    pairs: int


@dataclass(frozen=True, eq=False)
class RewardHead:
    """``(w . f - mean) / deviation`` of features f; ``weight`` is [1, width] in float32."""

    weight: Tensor
    mean: float = 0.0
    deviation: float = 1.0

    def rewards(self, features: Tensor) -> Tensor:
        """Return rewards in float64, [...], of features [..., width]."""
        raw = (features.double() * self.weight[0].double()).sum(-1)
        return (raw - self.mean) / self.deviation

    def standardised(self, common: Tensor) -> RewardHead:
        """Return the head whose rewards of features [texts, width] have mean 0 and variance 1.

        The scale is rounded to float32, as it is sent, so that server and clients agree.
        """
        raw = replace(self, mean=0.0, deviation=1.0).rewards(common)
        mean, deviation = scale_of(raw.numpy())
        return replace(self, mean=float(np.float32(mean)), deviation=float(np.float32(deviation)))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return what is sent: ``name.weight`` [1, width] and ``name.scale`` [2], float32."""
        return {
            f"{name}.weight": self.weight,
            f"{name}.scale": torch.tensor([self.mean, self.deviation]),
        }

    @classmethod
    def told(cls, name: str, tensors: Mapping[str, Tensor]) -> RewardHead:
        """Return the head that was sent as ``tensors``."""
        mean, deviation = tensors[f"{name}.scale"].tolist()
        return cls(tensors[f"{name}.weight"].cpu(), mean, deviation)

    def to_bytes(self, backbone: Backbone) -> bytes:
        """Return the file of this head, which reads what ``backbone`` makes of texts."""
        stored = reward_files.Stored({_HEAD: self.weight}, self.mean, self.deviation)
        return reward_files.to_bytes(stored, backbone)


def read(path: str | Path, backbone: Backbone) -> RewardHead:
    """Return the head in a file; raise UserError if it does not belong to ``backbone``."""
    stored, width = reward_files.read(path, backbone), _width(backbone)
    if set(stored.tensors) != {_HEAD}:
        raise UserError(
            f"'{path}' holds more than a head ({', '.join(sorted(stored.tensors))}), and rewards "
            "are read from the bare model; give the file of a model whose head alone was trained."
        )
    weight = stored.tensors[_HEAD]
    if weight.shape != (1, width):
        raise UserError(
            f"'{path}' has a head of shape {list(weight.shape)}, and '{backbone.name}' has "
            f"features of width {width}; train one on this model."
        )
    return RewardHead(weight.float(), stored.mean, stored.deviation)


def features(backbone: Backbone, examples: Examples) -> Tensor:
    """Return the pooled last hidden states of whole texts, [texts, width], or [pairs, 2, width].

    Prompt and answer are read together, by the bare backbone. Float32, on the CPU. Causal models
    are read by the mean over tokens, others as their own pooling says.
    """
    module, corpus, rows = backbone.module, examples.corpus, examples.rows.reshape(-1)
    own = isinstance(module, PooledClassifier)
    inner = module.backbone if own else module.base_model
    pooling, normalise = (module.pooling, module.normalise) if own else ("mean", False)
    caches = "use_cache" in inspect.signature(inner.forward).parameters
    options = {"use_cache": False} if caches else {}
    device = next(module.parameters()).device
    found = torch.zeros(len(rows), _width(backbone))
    # Whatever the texts were cut to: not every corpus with a text has the same cap.
    lengths = np.minimum(-(-corpus.lengths[rows] // _BUCKET) * _BUCKET, min(backbone.longest, _ANY))
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        for start in range(0, len(alike), _ROWS):
            places = alike[start : start + _ROWS]
            batch = corpus.batch(rows[places], int(length))
            ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            with torch.inference_mode():
                hidden = inner(input_ids=ids, attention_mask=mask, **options).last_hidden_state
                found[torch.from_numpy(places)] = pooled(hidden, mask, pooling, normalise).cpu()
    return found.view(*examples.rows.shape, -1)


def fit_head(features: Tensor, decay: float) -> RewardHead:
    """Return the head that tells chosen from rejected, of features [pairs, 2, width].

    ``mean_pairs -log sigmoid(w . (f+ - f-)) + decay / 2 ||w||^2``, solved to its minimum, which is
    unique; features are scaled to unit variance first, and the head scaled back.
    """
    scale = features.double().flatten(0, 1).std(0).clamp(min=1e-6)
    apart = (features[:, 0] - features[:, 1]).double() / scale
    weight = torch.zeros(apart.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")
    nothing = torch.zeros(1, len(apart), dtype=torch.float64)

    def loss() -> Tensor:
        solver.zero_grad()
        value = pairwise((apart @ weight)[None], nothing)[0]
        value = value + 0.5 * decay * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return RewardHead((weight.detach() / scale).float().view(1, -1))


def accuracy(rewards: np.ndarray) -> Accuracy:
    """Return how often the chosen text of [pairs, 2] has the higher reward; ties count half."""
    lead = rewards[:, 0] - rewards[:, 1]
    right = (lead > 0) + 0.5 * (lead == 0)
    error = right.std(ddof=1) / math.sqrt(len(right)) if len(right) > 1 else math.inf
    return Accuracy(float(right.mean()), float(error), len(right))


def scale_of(rewards: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of rewards of common texts; raise UserError if all are equal.

    Two models weigh alike only if they are standardised on the same texts.
    """
    deviation = float(rewards.std())
    if deviation <= _RELATIVE * float(np.abs(rewards).max(initial=0.0)):
        raise UserError(
            "a reward model gives all texts of the common set one reward, so it cannot be "
            "standardised; train it longer, or give it other texts."
        )
    return float(rewards.mean()), deviation


def _width(backbone: Backbone) -> int:
    return int(backbone.module.config.get_text_config().hidden_size)
