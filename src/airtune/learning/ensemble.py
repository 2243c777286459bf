"""From what several models know to what they know together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from airtune.learning.knowledge import UNKNOWN, Knowledge

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
    if rule == "mag" and there.any():
        values = part.values.double()
        least = values.masked_fill(~there, torch.inf).amin(1, keepdim=True)
        return (values - least + _EPSILON)[there]
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
    values = torch.full((positions, k), UNKNOWN)
    index = torch.zeros((positions, k), dtype=torch.int64)
    values[at, rank], index[at, rank] = value, entry
    return Knowledge(values, index, width, rest)
