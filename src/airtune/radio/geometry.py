"""Where points fall: uniform over a disc or a hexagon around the base station."""

from __future__ import annotations

import numpy as np

from airtune.radio.units import Floats, Points


def place_in_disc(
    count: int, radius_m: float, min_distance_m: float, rng: np.random.Generator
) -> Floats:
    """Return distances (m, ``[count]``) of points uniform over the ring around a base station.

    ``d = sqrt(m^2 + u (r^2 - m^2))`` with ``u`` uniform on [0, 1), ``m`` the smallest distance.
    """
    inner, outer = min_distance_m**2, radius_m**2
    return np.asarray(np.sqrt(inner + rng.random(count) * (outer - inner)))


def towards(distance_m: Floats, rng: np.random.Generator) -> Points:
    """Return points at these distances from the base station, in any direction."""
    return np.asarray(distance_m * np.exp(2j * np.pi * rng.random(distance_m.size)))


def place_in_hexagon(
    count: int, circumradius_m: float, min_distance_m: float, rng: np.random.Generator
) -> Points:
    """Return points uniform over a regular hexagon without its middle.

    The corners lie ``circumradius_m`` from the base station, the first on the x axis; the sides
    are ``sqrt(3)/2`` of it away, and ``min_distance_m``, the radius of the middle, is below that.
    Three rhombi with a corner at the origin tile the hexagon; who falls into the middle is drawn
    again.
    """
    corners = circumradius_m * np.exp(2j / 3.0 * np.pi * np.arange(4))
    points, missing = np.empty(count, dtype=np.complex128), np.arange(count)
    while missing.size:
        rhombus = rng.integers(3, size=missing.size)
        along, across = rng.random((2, missing.size))
        points[missing] = along * corners[rhombus] + across * corners[rhombus + 1]
        missing = missing[np.abs(points[missing]) < min_distance_m]
    return points
