"""Log-probabilities of given texts under an adapter, or under the backbone without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.losses import answer_log_probs
from airtune.learning.data.examples import Corpus, Examples
from airtune.learning.prediction import rows_of_a_pass


def reference_logits(model: AdaptedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of the backbone without any adapter, [rows, length, vocabulary].

    It shares its tensors with the adapted model, so it takes no memory of its own. It is the
    pretrained model as it came: its attention is dense also where that of the adapted layers is
    sparse (``adapter.attention_window``).
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits: Tensor = model.backbone.module(**inputs, use_cache=False).logits
    return logits


def pad_and_cap(model: AdaptedModel) -> tuple[int, int]:
    """Return what pads batches of the model's sequences, and how long these may be."""
    return model.backbone.tokenizer.pad_token_id or 0, model.backbone.longest


def hidden_states(model: AdaptedModel, answers: Answers) -> Tensor:
    """Return what the bare backbone makes of the tokens before each of the answers' tokens.

    [answers, longest, width], its last hidden states; zero behind an answer's end.
    """
    examples = answers.examples(*pad_and_cap(model))
    starts = torch.from_numpy(examples.corpus.targets)
    found: Tensor | None = None
    for positions in examples.by_length(rows_of_a_pass(model, examples)):
        batch = {name: value.to(model.device) for name, value in examples.batch(positions).items()}
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            said = model.backbone.module(**inputs, use_cache=False, output_hidden_states=True)
        states = said.hidden_states[-1].float().cpu()
        if found is None:
            found = torch.zeros(*answers.mask.shape, states.shape[2])
        rows = torch.from_numpy(positions)
        # The state before an answer's token t stands at the place before it.
        places = starts[rows].unsqueeze(1) - 1 + torch.arange(answers.mask.shape[1])
        places = places.clamp(max=states.shape[1] - 1)
        own = states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))
        found[rows] = own * answers.mask[rows].unsqueeze(2)
    if found is None:
        raise ValueError("there are no answers")
    return found


def log_probs(
    model: AdaptedModel, examples: Examples, adapter: Adapter | None, temperature: float = 1.0
) -> Tensor:
    """Return log-probabilities of the tokens to be learned, a column of tokens of the corpus.

    [tokens]; zero at what takes no part in the loss and at rows that are not among the examples.
    Without ``adapter`` they are the backbone's own: the reference of DPO and of a KL penalty.
    """
    corpus = examples.corpus
    alone = examples.select(np.unique(examples.rows))
    if adapter is not None:
        model.slots.load([adapter])
    column = torch.zeros(len(corpus.tokens))
    for positions in alone.by_length(rows_of_a_pass(model, alone)):
        batch = {name: value.to(model.device) for name, value in alone.batch(positions).items()}
        with torch.inference_mode():
            logits = reference_logits(model, batch) if adapter is None else model.logits(batch)
            found, mask = answer_log_probs(logits, batch["labels"], temperature)
        places, _ = corpus.places(alone.rows[positions], found.shape[1])
        column[torch.from_numpy(places)[mask.cpu()]] = found[mask].cpu()
    return column


def sums(corpus: Corpus, column: Tensor) -> Tensor:
    """Return each sequence's sum of a column of its tokens, [sequences]."""
    owners = torch.from_numpy(np.repeat(np.arange(len(corpus.lengths)), corpus.lengths))
    return torch.zeros(len(corpus.lengths), dtype=column.dtype).index_add(0, owners, column)
