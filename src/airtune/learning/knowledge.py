"""What a model knows about public texts: a few logits of each prediction, never all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.data.examples import Examples

if TYPE_CHECKING:
    from airtune.learning.prediction import Prediction

UNKNOWN = -torch.inf
_MOST_ENTRIES = 1 << 28  # of one model's knowledge: 3 GB


@dataclass(frozen=True)
class Knowledge:
    """Some logits at each prediction about public texts.

    ``values`` and ``index`` are [positions, k]: entries by falling value, then -inf and 0 where
    fewer are known. ``rest`` [positions] stands for all entries that are not listed; None: nothing
    is known of them. ``projections`` are [texts, taps, rank], NaN where a text has none.
    """

    values: Tensor
    index: Tensor
    width: int
    rest: Tensor | None = None
    projections: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what there is by name, as a checkpoint holds it."""
        return {name: each for name, each in vars(self).items() if isinstance(each, Tensor)}


class Positions:
    """Where the predictions about public texts, all rows of a corpus, lie.

    A classifier makes one of each text; a causal model one before each token that it is to learn.
    """

    def __init__(self, examples: Examples) -> None:
        corpus = examples.corpus
        self.examples = examples
        self.causal = corpus.task == "causal"
        if self.causal:
            self.places = corpus.predicted()
            self._of_place = np.full(len(corpus.tokens), -1)
            self._of_place[self.places] = np.arange(len(self.places))
            self.text = np.searchsorted(corpus.offsets, self.places, side="right") - 1
        else:
            self.text = np.arange(len(examples))

    def __len__(self) -> int:
        return len(self.text)

    def within(self, texts: Tensor | None) -> int:
        """Return how many predictions there are about these texts, all of them if None."""
        return len(self.about(texts))

    def about(self, texts: Tensor | None) -> Tensor:
        """Return the predictions about these texts, ascending; all of them if None."""
        if texts is None:
            return torch.arange(len(self))
        return torch.from_numpy(np.flatnonzero(np.isin(self.text, texts.numpy())))

    def of(self, seen: Prediction) -> tuple[np.ndarray, Tensor]:
        """Return which positions a pass predicted, [n], and their logits [n, width]."""
        if not self.causal:
            return seen.rows, seen.logits
        places, real = self.examples.corpus.places(seen.rows, seen.logits.shape[1])
        position = np.where(real, self._of_place[places], -1)
        chosen = position >= 0
        return position[chosen], seen.logits[torch.from_numpy(chosen).to(seen.logits.device)]

    def teach(self, known: Knowledge) -> Examples:
        """Return the examples with what is known beside each of their predictions."""
        columns = {"teacher_values": known.values, "teacher_index": known.index}
        if known.rest is not None:
            columns["teacher_rest"] = known.rest
        texts = {}
        if known.projections is not None:
            texts["teacher_projections"] = known.projections
        corpus = self.examples.corpus
        if not self.causal:
            return replace(self.examples, corpus=replace(corpus, columns=columns | texts))
        tokens = {}
        for name, column in columns.items():
            unknown = UNKNOWN if column.is_floating_point() else 0
            tokens[name] = column.new_full((len(corpus.tokens), *column.shape[1:]), unknown)
            tokens[name][torch.from_numpy(self.places)] = column
        return replace(self.examples, corpus=replace(corpus, columns=texts, token_columns=tokens))


Form = Literal["logits", "centred", "log-probabilities"]


def gather(
    predictions: Iterable[Prediction],
    positions: Positions,
    width: int,
    k: int,
    form: Form = "centred",
    draw: torch.Generator | None = None,
) -> Knowledge:
    """Keep the ``k`` largest logits of each prediction, or ``k`` drawn at random.

    Only the first ``width`` logits count. Nothing is known of what was not predicted. Raises
    UserError for more than memory holds.

    ``form``: logits as they are, relative to their mean over all entries, or as logarithms of
    probabilities.
    """
    k = min(k, width)
    if len(positions) * k > _MOST_ENTRIES:
        raise UserError(
            f"{len(positions)} predictions of {k} entries each are more than can be held; send "
            "fewer (method.k_max, data.public_rows), not all logits of a large vocabulary."
        )
    values = torch.full((len(positions), k), UNKNOWN)
    index = torch.zeros((len(positions), k), dtype=torch.int64)
    projections: list[tuple[np.ndarray, Tensor]] = []
    for seen in predictions:
        where, logits = positions.of(seen)
        logits = logits[:, :width].float()
        if form == "centred":
            logits = logits - logits.mean(1, keepdim=True)
        elif form == "log-probabilities":
            logits = logits.log_softmax(1)
        if draw is None:
            largest, entries = logits.topk(k, dim=1)
        else:
            chance = torch.rand(logits.shape, generator=draw).to(logits.device)
            entries = chance.topk(k, dim=1).indices
            drawn = logits.gather(1, entries)
            largest, order = drawn.sort(dim=1, descending=True)
            entries = entries.gather(1, order)
        at = torch.from_numpy(where)
        values[at], index[at] = largest.cpu(), entries.cpu()
        if seen.projections is not None:
            projections.append((seen.rows, seen.projections.float().cpu()))
    pooled = None
    if projections:
        pooled = torch.full((len(positions.examples), *projections[0][1].shape[1:]), torch.nan)
        for texts, each in projections:
            pooled[torch.from_numpy(texts)] = each
    return Knowledge(values, index, width, projections=pooled)


def limited(known: Knowledge, k: int | None) -> Knowledge:
    """Return the ``k`` largest entries of each position."""
    if k is None or known.values.shape[1] <= k:
        return known
    return replace(known, values=known.values[:, :k], index=known.index[:, :k])


def remembering(known: Knowledge, before: Mapping[str, Tensor] | None) -> Knowledge:
    """Return ``known`` with what was known before wherever it says nothing.

    ``before`` has ``values`` and ``index`` of all positions.
    """
    if before is None:
        return known
    silent = ~torch.isfinite(known.values).any(1)
    k = max(known.values.shape[1], before["values"].shape[1])
    values = torch.full((len(silent), k), UNKNOWN)
    index = torch.zeros((len(silent), k), dtype=torch.int64)
    for rows, new, entries in (
        (~silent, known.values, known.index),
        (silent, before["values"], before["index"]),
    ):
        values[rows, : new.shape[1]] = new[rows]
        index[rows, : new.shape[1]] = entries[rows]
    return replace(known, values=values, index=index)


def floored(known: Knowledge, margin: float) -> Knowledge:
    """Take what nobody sent for ``margin`` less than the smallest entry that somebody did."""
    there = torch.isfinite(known.values)
    if not there.shape[1]:  # nobody sent anything
        return replace(known, rest=torch.zeros(len(there)))
    least = known.values.masked_fill(~there, torch.inf).amin(1)
    return replace(known, rest=torch.where(there.any(1), least - margin, torch.zeros_like(least)))
