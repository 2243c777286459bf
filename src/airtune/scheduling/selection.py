"""Which clients take part in a round."""

from __future__ import annotations

import numpy as np

from airtune.keyed import generator
from airtune.radio.units import Ints


def choose_randomly(population: int, count: int, seed: int, round: int) -> Ints:
    """Return ``count`` distinct clients, sorted, uniform over all subsets; all if fewer exist."""
    if count >= population:
        return np.arange(population)
    rng = generator(seed, "selection", round)
    return np.sort(rng.choice(population, count, replace=False, shuffle=False))
