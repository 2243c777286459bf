"""The terms by which ranks are compared: what a rank cannot express, and what is not sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from airtune.learning import low_rank
from airtune.learning.components import Components, Pool
from airtune.learning.low_rank import Factors
from airtune.radio.units import Floats


def tail_shares(changes: Iterable[Factors], ranks: Sequence[int]) -> list[float]:
    """Return ``Phi(r) = sum_l sum_{i > r} s_li^2 / sum_l sum_i s_li^2`` for each rank.

    ``changes`` are those of all matrices, s their singular values: the share of a pilot's change
    that no change of rank r expresses. DERIVED; zero from the pilot's own rank on, by construction.
    """
    squares = [low_rank.singular_values(each) ** 2 for each in changes]
    whole = sum(float(each.sum()) for each in squares)
    if whole == 0.0:
        return [0.0 for _ in ranks]
    return [sum(float(each[rank:].sum()) for each in squares) / whole for rank in ranks]


def dropped_shares(
    components: Components, new: Mapping[str, Tensor], old: Mapping[str, Tensor], pool: Pool
) -> tuple[Floats, Tensor]:
    """Return ``e(K) = sum_{i not in S_K} d_i^2 / sum_i d_i^2``, [pieces + 1], and the ranking.

    ``d_i`` is the norm of the change of component i, SOFT's score; S_K are the K best pieces, in
    the order of the ranking [pieces, components of a piece]. All zero where nothing changed.
    """
    squares = components.changes(new, old) ** 2
    _, ranking = components.ranked(squares, pool)
    each = squares[ranking].sum(1).numpy()
    if each.sum() == 0.0:
        return np.zeros(len(each) + 1), ranking
    return np.concatenate([[1.0], np.maximum(1.0 - np.cumsum(each) / each.sum(), 0.0)]), ranking


def at(curve: Floats, pieces: float) -> float:
    """Return ``e`` at a mean number of pieces: between two whole ones, both are sent by turns."""
    return float(np.interp(pieces, np.arange(len(curve)), curve))


def best(ranking: Tensor, count: int, components: int) -> Tensor:
    """Return which components the ``count`` best pieces have, [components]."""
    kept = torch.zeros(components, dtype=torch.bool)
    kept[ranking[:count].reshape(-1)] = True
    return kept
