"""What a model with one adapter says of examples, and how often it is right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.batches import Group
from airtune.learning.data.examples import Examples
from airtune.learning.inputs import Inputs
from airtune.learning.phase import token_losses
from airtune.learning.projections import Taps

_MOST_ROWS = 64  # of a pass
_LOGIT_BYTES = 256e6  # of a pass


@dataclass(frozen=True)
class Prediction:
    """One pass over some examples: ``positions`` among those asked for, ``rows`` of the corpus."""

    positions: np.ndarray
    rows: np.ndarray
    batch: Mapping[str, Tensor]
    logits: Tensor
    projections: Tensor | None


@dataclass(frozen=True)
class Evaluation:
    """Per example: summed loss, number of predictions, and how many of them were right; all [n]."""

    loss: np.ndarray
    predictions: np.ndarray
    correct: np.ndarray

    def accuracy(self, rows: np.ndarray | slice = slice(None)) -> float:
        """Share of right predictions (classes, or next tokens); NaN without any."""
        return _ratio(self.correct[rows], self.predictions[rows])

    def mean_loss(self, rows: np.ndarray | slice = slice(None)) -> float:
        """Mean cross-entropy of a prediction, in nats; NaN without any."""
        return _ratio(self.loss[rows], self.predictions[rows])


def _ratio(values: np.ndarray, counts: np.ndarray) -> float:
    count = counts.sum()
    return float(values.sum() / count) if count else math.nan


def predict(
    model: AdaptedModel, inputs: Inputs, adapter: Adapter, examples: Examples, taps: Taps | None
) -> Iterator[Prediction]:
    """Yield predictions for all examples, a pass of rows of similar length at a time."""
    model.slots.load([adapter])
    inputs.prepare(examples, examples.rows)
    for positions in examples.by_length(rows_of_a_pass(model, examples)):
        rows, length = examples.rows[positions], examples.padded_lengths(positions)
        with torch.inference_mode():
            batch = inputs.batch(Group(np.zeros(1), examples.corpus, rows, int(length)))
            projections = None
            if taps is None:
                logits = model.logits(batch)
            else:
                logits, projections = model.tapped_logits(batch, taps)
        yield Prediction(positions, rows, batch, logits, projections)


def rows_of_a_pass(model: AdaptedModel, examples: Examples) -> int:
    """Return of how many rows the logits may be held at once."""
    if model.task == "classification":
        return _MOST_ROWS
    # A large vocabulary makes a position's logits megabytes.
    longest = int(examples.corpus.padded(examples.lengths()).max(initial=1))
    return max(1, min(_MOST_ROWS, int(_LOGIT_BYTES / (4 * longest * model.width))))


def evaluation(predictions: Iterable[Prediction], count: int) -> Evaluation:
    """Return how good the predictions of ``count`` examples are."""
    loss, predicted, correct = (np.zeros(count) for _ in range(3))
    for seen in predictions:
        labels = seen.batch["labels"]
        losses, counted = token_losses(seen.logits, labels)
        loss[seen.positions] = losses.double().cpu().numpy()
        predicted[seen.positions] = counted.cpu().numpy()
        correct[seen.positions] = _correct(seen.logits, labels).cpu().numpy()
    return Evaluation(loss, predicted, correct)


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many predictions of each row are right, [rows]."""
    if logits.dim() == 2:
        return (logits.argmax(1) == labels).double()
    return (logits[:, :-1].argmax(-1) == labels[:, 1:]).double().sum(1)
