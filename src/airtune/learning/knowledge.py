"""What a model knows about public texts: a few logits of each prediction, never all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from airtune.learning.adapter import Taps
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Prediction
from airtune.learning.phase import Pass

_UNKNOWN = -torch.inf


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


class Positions:
    """Where the predictions about some examples lie.

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

    def of(self, seen: Prediction) -> tuple[np.ndarray, Tensor]:
        """Return which positions a pass predicted, [n], and their logits [n, width]."""
        if not self.causal:
            return seen.positions, seen.logits
        corpus, rows = self.examples.corpus, self.examples.rows[seen.positions]
        places, real = corpus.places(rows, seen.logits.shape[1])
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
            unknown = _UNKNOWN if column.is_floating_point() else 0
            tokens[name] = column.new_full((len(corpus.tokens), *column.shape[1:]), unknown)
            tokens[name][torch.from_numpy(self.places)] = column
        return replace(self.examples, corpus=replace(corpus, columns=texts, token_columns=tokens))


def gather(
    predictions: Iterable[Prediction],
    positions: Positions,
    width: int,
    k: int,
    centre: bool = True,
    draw: torch.Generator | None = None,
) -> Knowledge:
    """Keep the ``k`` largest logits of each prediction, or ``k`` drawn at random.

    With ``centre`` each prediction's logits are taken relative to their mean.
    """
    k = min(k, width)
    values = torch.full((len(positions), k), _UNKNOWN)
    index = torch.zeros((len(positions), k), dtype=torch.int64)
    projections: list[tuple[np.ndarray, Tensor]] = []
    for seen in predictions:
        where, logits = positions.of(seen)
        if centre:
            logits = logits - logits.mean(1, keepdim=True)
        if draw is None:
            largest, entries = logits.float().topk(k, dim=1)
        else:
            chance = torch.rand(logits.shape, generator=draw).to(logits.device)
            entries = chance.topk(k, dim=1).indices
            drawn = logits.float().gather(1, entries)
            largest, order = drawn.sort(dim=1, descending=True)
            entries = entries.gather(1, order)
        at = torch.from_numpy(where)
        values[at], index[at] = largest.cpu(), entries.cpu()
        if seen.projections is not None:
            projections.append((seen.positions, seen.projections.float().cpu()))
    pooled = None
    if projections:
        pooled = torch.full((len(positions.examples), *projections[0][1].shape[1:]), torch.nan)
        for texts, each in projections:
            pooled[torch.from_numpy(texts)] = each
    return Knowledge(values, index, width, projections=pooled)


Rule = Literal["mask", "count", "mag", "zero", "prob"]
_EPSILON = 1e-6


@dataclass(frozen=True)
class Part:
    """What one sender says: entries [n, k] at ``positions`` [n], as in :class:`Knowledge`."""

    positions: Tensor
    values: Tensor
    index: Tensor


def combine(parts: Sequence[Part], positions: int, width: int, rule: Rule) -> Knowledge:
    """Return what the senders say together, entry by entry, over those who sent that entry.

    ``K_c = sum_n w_n,c K_n,c``, ``w_n,c = s_n,c / sum_m s_m,c`` (FOUND-S); nothing is filled in
    for who did not send. s is not defined in what we found; DERIVED, all three:

    - ``mask``: 1 where sent;
    - ``count``: in how many of its predictions the sender named that entry;
    - ``mag``: how far the value lies above the sender's smallest one at that position.

    Baselines: ``zero`` averages over all senders with 0 where an entry was not sent; ``prob``
    takes values as logarithms of probabilities, spreads each sender's remaining mass evenly over
    what it did not send, and averages probabilities.
    """
    where = torch.cat([p.positions[:, None].expand_as(p.index)[_there(p)] for p in parts])
    entry = torch.cat([p.index[_there(p)] for p in parts])
    value = torch.cat([p.values[_there(p)] for p in parts]).double()
    keys, group = torch.unique(where * width + entry, return_inverse=True)
    at = torch.div(keys, width, rounding_mode="floor")

    def summed(terms: Tensor) -> Tensor:
        return torch.zeros(len(keys), dtype=torch.float64).index_add(0, group, terms)

    def per_position(terms: Sequence[Tensor]) -> Tensor:
        total = torch.zeros(positions, dtype=torch.float64)
        for part, term in zip(parts, terms, strict=True):
            total.index_add_(0, part.positions, term)
        return total

    senders = per_position([torch.ones(len(p.positions), dtype=torch.float64) for p in parts])
    rest = None
    if rule == "zero":
        combined, rest = summed(value) / senders[at], torch.zeros(positions)
    elif rule == "prob":
        spread = [_spread(part, width) for part in parts]
        missing = torch.cat(
            [s[:, None].expand_as(p.index)[_there(p)] for p, s in zip(parts, spread, strict=True)]
        )
        floor = per_position(spread)
        # Every sender gives every entry something: its value, or its share of what is left.
        mass = floor[at] + summed(value.exp() - missing)
        combined = (mass.clamp(min=1e-12) / senders[at]).log()
        rest = (floor.clamp(min=1e-12) / senders.clamp(min=1)).log().float()
    else:
        weight = torch.cat([_weights(part, width, rule) for part in parts])
        combined = summed(weight * value) / summed(weight)
    return _rectangular(at, keys - at * width, combined.float(), positions, width, rest)


def _there(part: Part) -> Tensor:
    return torch.isfinite(part.values)


def _weights(part: Part, width: int, rule: Rule) -> Tensor:
    there = _there(part)
    if rule == "count":
        named = torch.bincount(part.index[there], minlength=width)
        return named[part.index[there]].double()
    if rule == "mag":
        least = part.values.masked_fill(~there, torch.inf).amin(1, keepdim=True)
        return (part.values - least + _EPSILON)[there].double()
    return torch.ones(int(there.sum()), dtype=torch.float64)


def _spread(part: Part, width: int) -> Tensor:
    """Return the probability that each entry which was not sent has, [n]."""
    there = _there(part)
    left = 1.0 - part.values.double().exp().masked_fill(~there, 0.0).sum(1)
    return left.clamp(min=0.0) / (width - there.sum(1)).clamp(min=1)


def _rectangular(
    at: Tensor, entry: Tensor, value: Tensor, positions: int, width: int, rest: Tensor | None
) -> Knowledge:
    """Lay entries out by position, falling values first."""
    order = value.argsort(descending=True, stable=True)
    order = order[at[order].argsort(stable=True)]
    at, entry, value = at[order], entry[order], value[order]
    counts = torch.bincount(at, minlength=positions)
    rank = torch.arange(len(at)) - (counts.cumsum(0) - counts)[at]
    k = int(counts.max()) if len(counts) else 0
    values = torch.full((positions, k), _UNKNOWN)
    index = torch.zeros((positions, k), dtype=torch.int64)
    values[at, rank], index[at, rank] = value, entry
    return Knowledge(values, index, width, rest)


def limited(known: Knowledge, k: int | None) -> Knowledge:
    """Return the ``k`` largest entries of each position."""
    if k is None or known.values.shape[1] <= k:
        return known
    return replace(known, values=known.values[:, :k], index=known.index[:, :k])


def floored(known: Knowledge, margin: float) -> Knowledge:
    """Take what nobody sent for ``margin`` less than the smallest entry that somebody did."""
    there = torch.isfinite(known.values)
    least = known.values.masked_fill(~there, torch.inf).amin(1)
    return replace(known, rest=torch.where(there.any(1), least - margin, torch.zeros_like(least)))


@dataclass(frozen=True)
class Distillation:
    """Objective: learn what is known of public texts (spec 2.6; both terms KL: FOUND-S).

    ``tau^2 KL(softmax(K / tau) || softmax(model / tau))`` over the known entries, the model's
    renormalised among them; over all entries if a rest value is known. Plus ``weight`` times the
    mean over taps of KL between softmaxes over the rank of the projections. Predictions of which
    nothing is known take no part.
    """

    temperature: float
    weight: float = 0.0
    taps: Taps | None = None
    projection_temperature: float = 1.0

    def __call__(self, step: Pass) -> Tensor:
        """Return one loss per slot, [slots]."""
        if self.taps is None or "teacher_projections" not in step.batch:
            return self._of_logits(step, step.logits())
        logits, own = step.logits_and_projections(self.taps)
        target = step.batch["teacher_projections"]
        known = ~target.isnan().any(-1)
        tau = self.projection_temperature
        wanted = functional.log_softmax(target.nan_to_num() / tau, dim=-1)
        got = functional.log_softmax(own / tau, dim=-1)
        gap = (wanted.exp() * (wanted - got)).sum(-1)
        return self._of_logits(step, logits) + self.weight * _mean(gap, known, step.slots)

    def _of_logits(self, step: Pass, logits: Tensor) -> Tensor:
        values, index = step.batch["teacher_values"], step.batch["teacher_index"]
        known = torch.isfinite(values)
        scaled = logits.float() / self.temperature
        own = scaled.gather(-1, index)
        if "teacher_rest" in step.batch:
            total = torch.logsumexp(scaled, dim=-1, keepdim=True)
            divergence = self._over_all(
                step.batch["teacher_rest"], values, own - total, scaled, total
            )
        else:
            lowest = torch.finfo(own.dtype).min
            wanted = functional.log_softmax(
                (values / self.temperature).masked_fill(~known, lowest), -1
            )
            got = functional.log_softmax(own.masked_fill(~known, lowest), dim=-1)
            divergence = (wanted.exp() * (wanted - got)).masked_fill(~known, 0.0).sum(-1)
        return self.temperature**2 * _mean(divergence, known.any(-1), step.slots)

    def _over_all(
        self, rest: Tensor, values: Tensor, got: Tensor, scaled: Tensor, total: Tensor
    ) -> Tensor:
        """Return KL over all entries, those not listed having the value ``rest``."""
        known = torch.isfinite(values)
        width = scaled.shape[-1]
        others = width - known.sum(-1)
        floor = rest.nan_to_num(neginf=0.0) / self.temperature
        listed = (values / self.temperature).masked_fill(~known, -torch.inf)
        bulk = torch.where(others > 0, floor + others.clamp(min=1).log(), -torch.inf)
        norm = torch.logsumexp(torch.cat([listed, bulk.unsqueeze(-1)], dim=-1), dim=-1)
        wanted = listed - norm.unsqueeze(-1)
        inner = (wanted.exp() * (wanted.masked_fill(~known, 0.0) - got)).masked_fill(~known, 0.0)
        left = scaled.sum(-1) - width * total.squeeze(-1) - got.masked_fill(~known, 0.0).sum(-1)
        outer = (floor - norm).exp() * (others * (floor - norm) - left)
        return inner.sum(-1) + torch.where(others > 0, outer, torch.zeros_like(outer))


def _mean(each: Tensor, counted: Tensor, slots: int) -> Tensor:
    """Return each slot's mean over what is counted, [slots]; 0 where nothing is."""
    weight = counted.to(each.dtype).reshape(slots, -1)
    total = (each.masked_fill(~counted, 0.0)).reshape(slots, -1).sum(1)
    return total / weight.sum(1).clamp(min=1.0)
