"""Rules for which clients take part in a round."""

from __future__ import annotations

import numpy as np

from airtune.keyed import generator
from airtune.radio.units import Bools, Floats, Ints

_NOTHING = 1e-9  # bit/s, below which an average is none


def choose_randomly(population: int, count: int, seed: int, round: int) -> Ints:
    """Return ``count`` distinct clients, sorted, uniform over all subsets; all if fewer exist."""
    if count >= population:
        return np.arange(population)
    rng = generator(seed, "selection", round)
    return np.sort(rng.choice(population, count, replace=False, shuffle=False))


def choose_in_turn(population: int, count: int, round: int) -> Ints:
    """Return the ``count`` clients whose turn it is, sorted; rounds count from 1.

    ``(round - 1) count + i mod population``: after ``population / count`` rounds all had theirs.
    """
    first = (round - 1) * min(count, population)
    return np.sort((first + np.arange(min(count, population))) % population)


def choose_best(score: Floats, count: int) -> Ints:
    """Return the ``count`` clients with the largest ``score`` [clients], sorted; ties by index."""
    return np.sort(np.argsort(-score, kind="stable")[:count])


def choose_proportionally_fair(rate: Floats, average: Floats, count: int) -> Ints:
    """Return the ``count`` clients with the largest ``rate / average``, sorted.

    ``rate`` [clients] is what each link could carry now, ``average`` what it has carried, both in
    bit/s. Who has carried nothing comes first, by rate; who can carry nothing comes last. It
    maximises the sum of the logarithms of long-term rates (FOUND: Viswanath, Tse and Laroia, 2002,
    for one user at a time; for several, their greedy choice).
    """
    return choose_best(rate / np.maximum(average, _NOTHING), count)


def average_rates(average: Floats, rate: Floats, served: Bools, rounds: float) -> Floats:
    """Return ``(1 - 1/W) T + (1/W) r [served]``, [clients]: averages after a round, in bit/s.

    ``rounds`` is the memory W; FOUND as above.
    """
    return np.asarray((1.0 - 1.0 / rounds) * average + np.where(served, rate, 0.0) / rounds)


def choose_feasible(feasible: Bools, count: int, seed: int, round: int) -> tuple[Ints, Ints]:
    """Return ``count`` of the ``feasible`` [clients], uniform over their subsets, and who else.

    All of them if they are fewer; then the second array has those who would have filled the places
    and cannot, so that both hold ``count`` together. Sorted.
    """
    order = generator(seed, "feasible selection", round).permutation(feasible.size)
    able, unable = order[feasible[order]], order[~feasible[order]]
    return np.sort(able[:count]), np.sort(unable[: max(count - able.size, 0)])
