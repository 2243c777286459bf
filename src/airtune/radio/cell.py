"""A cell through time: the state of every link in every round.

Places, then what they make of a link (``large_scale``), then fading (``small_scale``); or SNRs that
are stated instead (``stated``). Here they become links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.radio.config import CellConfig
from airtune.radio.large_scale import LargeScale
from airtune.radio.small_scale import SmallScale, likely_powers
from airtune.radio.stated import Replayed, stated, uniform_powers
from airtune.radio.units import Bools, Floats, Ints, from_db


@dataclass(frozen=True)
class Links:
    """The links of the whole population in one round; every array is ``[clients]``.

    ``mean_gain`` has path loss and shadowing, ``gain`` the fading as well (both linear). The
    ``snr_hz`` fields are P g / (N0 F) in Hz: ``snr_hz`` as the uplink is, ``mean_snr_hz`` averaged
    over fading, ``planned_snr_hz`` as the server believes it, ``downlink_snr_hz`` of the broadcast.
    ``indoors`` are those behind walls.
    """

    round: int
    distance_m: Floats
    line_of_sight: Bools
    mean_gain: Floats
    gain: Floats
    snr_hz: Floats
    mean_snr_hz: Floats
    planned_snr_hz: Floats
    downlink_snr_hz: Floats
    indoors: Bools

    def __len__(self) -> int:
        return self.distance_m.size


class Cell:
    """One base station and ``clients`` clients.

    Placement, line of sight and shadowing last for the run unless clients move; fading moves on
    from round to round. Uplink and downlink share one gain (time-division reciprocity). The
    attributes are those of round 0. Raises ``UserError`` for positions or a trace that do not
    match the clients.
    """

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._large_scale = LargeScale(config, clients, seed)
        self._small_scale = SmallScale(config, clients, seed)
        self._stated = stated(config, clients, seed)
        start = self._large_scale.at(0)
        self.distance_m = start.distance_m
        self.line_of_sight = start.line_of_sight
        self.mean_gain = start.mean_gain

    def links(self, round: int) -> Links:
        """Return the links of a round: a function of (config, clients, seed, round) alone."""
        config = self.config
        around = self._large_scale.at(round)
        if config.ideal:
            return _ideal(round, around.distance_m)
        per_gain = config.power_w / config.noise_w_per_hz
        if self._stated is None:
            mean_gain = around.mean_gain
            gain = mean_gain * self._small_scale.power(round, around.line_of_sight, around.indoors)
        else:
            mean_gain = self._stated.mean_snr_hz() / per_gain
            gain = self._stated.snr_hz(round) / per_gain
        mean_snr_hz = per_gain * mean_gain
        snr_hz = per_gain * gain
        margin = float(from_db(-config.fade_margin_db))
        return Links(
            round=round,
            distance_m=around.distance_m,
            line_of_sight=around.line_of_sight,
            mean_gain=mean_gain,
            gain=gain,
            snr_hz=snr_hz,
            mean_snr_hz=mean_snr_hz,
            planned_snr_hz=snr_hz if config.csi == "perfect" else margin * mean_snr_hz,
            downlink_snr_hz=config.base_station_power_w / config.client_noise_w_per_hz * gain,
            indoors=around.indoors,
        )


def likely_snr_hz(config: CellConfig, links: Links, clients: Ints, count: int) -> Floats:
    """Return ``count`` equally likely values of P g / (N0 F) in Hz, [n, count] of clients [n].

    Over fading around a client's present place, over the range of ``snr_db``, or over a trace:
    what a link is in the long run.
    """
    if config.trace is not None:
        return Replayed(config, len(links)).likely_snr_hz(clients, count)
    if config.ideal:
        powers = np.ones(count)
    elif config.snr_db is not None:
        powers = uniform_powers(config.snr_db, count)
    else:
        seen, indoors = links.line_of_sight[clients], links.indoors[clients]
        powers = likely_powers(config, seen, indoors, count)
    return np.asarray(links.mean_snr_hz[clients, None] * powers)


def _ideal(round: int, distance_m: Floats) -> Links:
    one = np.ones_like(distance_m)
    perfect = np.full_like(one, np.inf)
    snrs = perfect, perfect, perfect, perfect
    return Links(round, distance_m, one > 0, one, one, *snrs, one < 0)
