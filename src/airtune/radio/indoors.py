"""Clients behind the walls of buildings: outdoor-to-indoor loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.keyed import generator
from airtune.radio.units import Bools, Floats

DEEPEST_M = 25.0
DEEPEST_RURAL_M = 10.0
_SPREAD_DB = 4.4


def low_loss_db(depth_m: Floats, carrier_ghz: float) -> Floats:
    """Return the mean loss in dB of a wall of glass and concrete and ``depth_m`` behind it.

    ``5 - 10 log10(0.3 10^(-(2 + 0.2 f)/10) + 0.7 10^(-(5 + 4 f)/10)) + 0.5 depth``, the low-loss
    model of 3GPP TR 38.901 table 7.4.3-2 (RECALLED, and the same in the source of Sionna 2.2).
    """
    glass_db, concrete_db = 2.0 + 0.2 * carrier_ghz, 5.0 + 4.0 * carrier_ghz
    through = 0.3 * 10.0 ** (-glass_db / 10.0) + 0.7 * 10.0 ** (-concrete_db / 10.0)
    return np.asarray(5.0 - 10.0 * np.log10(through) + 0.5 * depth_m)


@dataclass(frozen=True)
class Indoors:
    """Who is inside, how deep (m), behind what loss (dB); every array is ``[clients]``.

    Depth and loss are 0 outside. They last for the run, also where clients move.
    """

    inside: Bools
    depth_m: Floats
    loss_db: Floats


def indoors(
    fraction: float, carrier_ghz: float, clients: int, seed: int, deepest_m: float = DEEPEST_M
) -> Indoors:
    """Draw a ``fraction`` of the clients behind walls.

    A depth is the smaller one of two draws, uniform from 0 to ``deepest_m`` (FOUND: 3GPP TR 38.901
    clause 7.4.3.1 as other simulators quote it: 25 m, in rural cells 10 m), a loss normal around
    :func:`low_loss_db` with a spread of 4.4 dB.
    """
    rng = generator(seed, "indoors")
    inside = rng.random(clients) < fraction
    one, normal, other = rng.random(clients), rng.standard_normal(clients), rng.random(clients)
    depth = np.where(inside, deepest_m * np.minimum(one, other), 0.0)
    loss = low_loss_db(depth, carrier_ghz) + _SPREAD_DB * normal
    return Indoors(inside, depth, np.where(inside, loss, 0.0))
