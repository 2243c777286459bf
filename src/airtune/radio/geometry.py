"""Where the clients are."""

from __future__ import annotations

import numpy as np

from airtune.radio.units import Floats


def place_in_disc(
    count: int, radius_m: float, min_distance_m: float, rng: np.random.Generator
) -> Floats:
    """Return distances (m, ``[count]``) of points uniform over the ring around a base station.

    ``d = sqrt(m^2 + u (r^2 - m^2))`` with ``u`` uniform on [0, 1), ``m`` the smallest distance.
    """
    inner, outer = min_distance_m**2, radius_m**2
    return np.asarray(np.sqrt(inner + rng.random(count) * (outer - inner)))
