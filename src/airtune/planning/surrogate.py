"""The surrogate ``U(r) = c2 Phi(r) + c3 E_sp(r, rho) + c4 Cov(r)``: its weights and its choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import nnls

from airtune.radio.units import Floats

_ROUNDING = 1e-9  # terms are shares; what is smaller is none


class Terms(NamedTuple):
    """What a rank, and what is sent of it, leaves out; each a share of a squared change."""

    phi: float
    dropped: float
    covariance: float


class Seen(NamedTuple):
    """By how much the held-out loss fell in a pilot's round, with these terms."""

    round: int
    drop: float
    terms: Terms


@dataclass(frozen=True)
class Weights:
    """``c`` of Phi, E_sp and Cov, and how they were found."""

    c: Terms
    how: Literal["fitted", "normalised"]

    def value(self, terms: Terms) -> float:
        """Return U."""
        return sum(weight * term for weight, term in zip(self.c, terms, strict=True))


def fit(seen: Sequence[Seen]) -> Weights | None:
    """Return weights that explain the drops, None where these do not determine any.

    ``drop = g_round - c2 Phi - c3 E_sp - c4 Cov`` by nonnegative least squares: one step of the
    bound (DERIVED in the specification), its gain g shared by all ranks of a round. A term that is
    zero throughout weighs nothing. None if columns depend on each other, if there are no more
    equations than unknowns, or if every weight comes out zero: then the terms explain nothing.
    """
    rounds = sorted({each.round for each in seen})
    gains = np.array([[each.round == number for number in rounds] for each in seen], dtype=float)
    terms = np.array([each.terms for each in seen], dtype=float).reshape(len(seen), 3)
    terms[terms < _ROUNDING] = 0.0
    there = np.flatnonzero(terms.any(axis=0))
    columns = np.hstack([gains, -terms[:, there]])
    if there.size == 0 or len(seen) <= columns.shape[1]:
        return None
    scale = np.linalg.norm(columns, axis=0)
    if np.linalg.matrix_rank(columns / scale, tol=1e-6) < columns.shape[1]:
        return None
    drops = np.array([each.drop for each in seen])
    found, _ = nnls(columns / scale, drops)
    c: Floats = np.zeros(3)
    c[there] = (found / scale)[len(rounds) :]
    c[c * terms.max(axis=0) <= 1e-9 * np.abs(drops).max()] = 0.0  # only rounding
    return Weights(Terms(*map(float, c)), "fitted") if c.any() else None


def normalised(ranks: Sequence[int], terms: Sequence[Terms]) -> Weights:
    """Return weights that make every term 1 at rank 8, or at the middle of ascending ranks.

    A term that is zero there is 1 where it is largest; one that is zero everywhere weighs nothing.
    """
    middle = terms[ranks.index(8) if 8 in ranks else len(ranks) // 2]
    c = []
    for index, usual in enumerate(middle):
        size = usual or max(each[index] for each in terms)
        c.append(1.0 / size if size else 0.0)
    return Weights(Terms(*c), "normalised")


def choose(ranks: Sequence[int], costs: Sequence[float]) -> int:
    """Return the rank of the least cost, the smallest among equals."""
    return min(zip(costs, ranks, strict=True))[1]
