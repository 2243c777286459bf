"""Where the clients of a cell are in each round."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from airtune.errors import UserError
from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.geometry import place_in_disc, place_in_hexagon, towards
from airtune.radio.mobility import Draw, RandomWaypoint
from airtune.radio.units import Floats, Points


@dataclass(frozen=True)
class Places:
    """Positions, and distances from the base station (m); both are ``[clients]``.

    Distances are never below ``min_distance_m``: who walks by nearer is heard as from there.
    """

    position: Points
    distance_m: Floats


class Placement:
    """The clients' places; raises ``UserError`` unless ``positions_m`` has one for each client."""

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self._nearest_m = config.min_distance_m
        self._walk: RandomWaypoint | None = None
        if config.mobility == "random-waypoint":
            self._walk = RandomWaypoint(
                _waypoints(config),
                clients,
                config.radius_m,
                config.speed_kmh / 3.6,
                config.pause_s,
                config.round_interval_s,
                seed,
            )
        else:
            self._standing = _standing(config, clients, seed)

    def at(self, round: int) -> Places:
        """Return the places in a round: a function of (config, clients, seed, round) alone."""
        if self._walk is None:
            return self._standing
        position = self._walk.at(round)
        return Places(position, np.maximum(np.abs(position), self._nearest_m))


def _standing(config: CellConfig, clients: int, seed: int) -> Places:
    rng = generator(seed, "placement")
    if config.positions_m is not None:
        if len(config.positions_m) != clients:
            raise UserError(
                f"cell.positions_m: there are {len(config.positions_m)} positions for {clients} "
                "clients; give one for each."
            )
        position = np.array([complex(x, y) for x, y in config.positions_m])
    elif config.layout == "hexagon":
        position = place_in_hexagon(clients, config.radius_m, config.min_distance_m, rng)
    else:
        distance = place_in_disc(clients, config.radius_m, config.min_distance_m, rng)
        return Places(towards(distance, generator(seed, "bearing")), distance)
    return Places(position, np.abs(position))


def _waypoints(config: CellConfig) -> Draw:
    if config.layout == "hexagon":
        return lambda count, rng: place_in_hexagon(
            count, config.radius_m, config.min_distance_m, rng
        )
    ring = partial(place_in_disc, radius_m=config.radius_m, min_distance_m=config.min_distance_m)
    return lambda count, rng: towards(ring(count, rng=rng), rng)
