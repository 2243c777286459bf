"""What a client's place makes of its link: distance, sight, path loss and shadowing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.fading import shadowing_db
from airtune.radio.indoors import DEEPEST_M, DEEPEST_RURAL_M, indoors
from airtune.radio.path_loss import (
    IN_SIGHT,
    INDOORS,
    OUT_OF_SIGHT,
    PATH_LOSS,
    PathLoss,
    log_distance_db,
)
from airtune.radio.placement import Placement, Places
from airtune.radio.spatial import NormalMap
from airtune.radio.units import Bools, Floats, Ints, from_db


@dataclass(frozen=True)
class Surroundings:
    """Distance (m), sight, mean gain (linear) of every client, and who is behind walls.

    Arrays are ``[clients]``.
    """

    distance_m: Floats
    line_of_sight: Bools
    mean_gain: Floats
    indoors: Bools


class LargeScale:
    """The mean gains of a cell.

    Sight and shadowing are drawn for each client, or read from maps of the place: those are
    shared by all clients, near ones are alike, and who moves takes on what is there. Clients that
    stay keep what they have for the run.
    """

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self._config = config
        self._model = path_loss_model(config)
        self._placement = Placement(config, clients, seed)
        deepest_m = DEEPEST_RURAL_M if config.path_loss == "rma" else DEEPEST_M
        self._indoors = (
            indoors(config.indoor_fraction, config.carrier_ghz, clients, seed, deepest_m)
            if config.indoor_fraction > 0.0
            else None
        )
        self._variates: _Drawn | _Mapped = _Drawn(clients, seed)
        if config.has_maps:
            self._variates = _Mapped(self._model, config.decorrelation_m, _reach_m(config), seed)
        moves = config.mobility != "none"
        self._standing = None if moves else self._look(self._placement.at(0))

    def at(self, round: int) -> Surroundings:
        """Return the surroundings in a round: a function of (config, clients, seed, round)."""
        return self._standing or self._look(self._placement.at(round))

    def _look(self, places: Places) -> Surroundings:
        config, model, distance = self._config, self._model, places.distance_m
        outdoors = distance
        if self._indoors is not None:
            outdoors = np.maximum(distance - self._indoors.depth_m, 0.0)
        seen = self._variates.chance(places) < model.los_probability(outdoors)
        loss_db = model.loss_db(distance, config.carrier_ghz, seen)
        where = np.where(seen, IN_SIGHT, OUT_OF_SIGHT)
        if self._indoors is not None:
            # What is seen from outside is the wall: its loss is that of sight, the client's
            # shadowing and fading are not.
            where = np.where(self._indoors.inside, INDOORS, where)
            seen = seen & ~self._indoors.inside
            loss_db = loss_db + self._indoors.loss_db
        if config.shadowing_db is None:
            spread_db = model.spread_db(distance, config.carrier_ghz, where)
        else:
            spread_db = np.full(distance.size, config.shadowing_db)
        shadow_db = self._variates.shadowing_db(spread_db, where, places)
        return Surroundings(distance, seen, from_db(-loss_db - shadow_db), where == INDOORS)


def _reach_m(config: CellConfig) -> float:
    """Return the distance from the base station within which all places are."""
    return max((math.hypot(*point) for point in config.positions_m or ()), default=config.radius_m)


def path_loss_model(config: CellConfig) -> PathLoss:
    """Return the cell's propagation model, the log-distance law with the cell's numbers."""
    model = PATH_LOSS[config.path_loss]
    if config.path_loss != "log-distance":
        return model
    law = (
        config.log_distance_exponent,
        config.log_distance_reference_db,
        config.log_distance_reference_m,
    )
    return replace(model, loss_db=lambda d, f, los: log_distance_db(d, *law))


class _Drawn:
    """Sight and shadowing that are independent from client to client."""

    def __init__(self, clients: int, seed: int) -> None:
        self._clients = clients
        self._seed = seed

    def chance(self, places: Places) -> Floats:
        return generator(self._seed, "line of sight").random(self._clients)

    def shadowing_db(self, spread_db: Floats, where: Ints, places: Places) -> Floats:
        return shadowing_db(spread_db, generator(self._seed, "shadowing"))


class _Mapped:
    """Sight and shadowing by place: a map for sight, and one of shadowing for each surroundings.

    Source: 3GPP TR 38.901 clause 7.6.3, with a map in place of the pairs of clients.
    """

    def __init__(
        self, model: PathLoss, decorrelation_m: float | None, reach_m: float, seed: int
    ) -> None:
        rng = generator(seed, "map of sight")
        self._sight = NormalMap(model.sight_decorrelation_m, rng, reach_m)
        self._reach_m = reach_m
        own = model.decorrelation_m
        self._decorrelation_m = own if decorrelation_m is None else 3 * (decorrelation_m,)
        self._shadowing: dict[int, NormalMap] = {}
        self._seed = seed

    def chance(self, places: Places) -> Floats:
        return np.asarray(ndtr(self._sight.at(places.position)))

    def shadowing_db(self, spread_db: Floats, where: Ints, places: Places) -> Floats:
        found = np.empty_like(spread_db)
        for index in (IN_SIGHT, OUT_OF_SIGHT, INDOORS):
            here = np.flatnonzero(where == index)
            if here.size:
                found[here] = spread_db[here] * self._map(index).at(places.position[here])
        return found

    def _map(self, index: int) -> NormalMap:
        # A map is made when the first client comes there; many cells have nobody indoors.
        if index not in self._shadowing:
            rng = generator(self._seed, "map of shadowing", index)
            self._shadowing[index] = NormalMap(self._decorrelation_m[index], rng, self._reach_m)
        return self._shadowing[index]
