"""A cell through time: the state of every link in every round.

Places, then what they make of a link (``large_scale``), then fading (``small_scale``); or SNRs that
are stated instead (``stated``). Here they become links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from airtune.radio.bler import bler_curves
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.large_scale import LargeScale
from airtune.radio.selective import (
    Selective,
    effective_power,
    flat_snr_hz,
    likely_effective_powers,
)
from airtune.radio.small_scale import SmallScale, k_factor, likely_powers
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


@dataclass(frozen=True)
class SelectiveLinks(Links):
    """Links whose resource blocks fade differently.

    ``gain`` and ``snr_hz`` are those of flat links that carry as much over ``equivalent_hz`` Hz
    spread over the band, ``downlink_snr_hz`` over the whole of it (``selective.effective_power``).
    ``block_snr_hz`` gives some clients' P g / (N0 F) in Hz on each block, [n, blocks].
    """

    equivalent_hz: float
    block_snr_hz: Callable[[Ints], Floats]


class Cell:
    """One base station and ``clients`` clients.

    Placement, line of sight and shadowing last for the run unless clients move; fading moves on
    from round to round. Uplink and downlink share one gain (time-division reciprocity). The
    attributes are those of round 0. ``sharing`` clients divide the band in a round, all by
    default; with a delay spread links stand for blocks at the equal share of so many. Raises
    ``UserError`` for positions or a trace that do not match the clients, and for error curves that
    cannot be had.
    """

    def __init__(
        self, config: CellConfig, clients: int, seed: int, sharing: int | None = None
    ) -> None:
        self.config = config
        self.seed = seed
        if config.packet_error == "bler" and not config.ideal:
            bler_curves(config.packet_bits)  # now, rather than in the middle of a round
        self._large_scale = LargeScale(config, clients, seed)
        self._small_scale = SmallScale(config, clients, seed)
        self._selective = Selective(config, clients, seed) if config.delay_spread_ns else None
        self._share_hz = config.bandwidth_hz / (sharing or clients)
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
        down_per_gain = config.base_station_power_w / config.client_noise_w_per_hz
        mean_gain, sight, inside = around.mean_gain, around.line_of_sight, around.indoors
        if self._selective is not None:
            blocks = self._selective.powers(round, k_factor(config, sight, inside))
            gain, down_gain = self._effective(blocks, mean_gain, per_gain, down_per_gain)
        elif self._stated is None:
            gain = down_gain = mean_gain * self._small_scale.power(round, sight, inside)
        else:
            mean_gain = self._stated.mean_snr_hz() / per_gain
            gain = down_gain = self._stated.snr_hz(round) / per_gain
        mean_snr_hz = per_gain * mean_gain
        snr_hz = per_gain * gain
        margin = float(from_db(-config.fade_margin_db))
        links = Links(
            round=round,
            distance_m=around.distance_m,
            line_of_sight=sight,
            mean_gain=mean_gain,
            gain=gain,
            snr_hz=snr_hz,
            mean_snr_hz=mean_snr_hz,
            planned_snr_hz=snr_hz if config.csi == "perfect" else margin * mean_snr_hz,
            downlink_snr_hz=down_per_gain * down_gain,
            indoors=inside,
        )
        if self._selective is None:
            return links
        fading, k = self._selective, k_factor(config, sight, inside)

        def block_snr_hz(clients: Ints) -> Floats:
            return mean_snr_hz[clients, None] * fading.powers_of(clients, round, k)

        return SelectiveLinks(
            **vars(links), equivalent_hz=self._share_hz, block_snr_hz=block_snr_hz
        )

    def _effective(
        self,
        blocks: Iterable[tuple[slice, Floats]],
        mean_gain: Floats,
        per_gain: float,
        down_per_gain: float,
    ) -> tuple[Floats, Floats]:
        """Return gains that stand for fading blocks, up at an equal share and down at the band."""
        up, down = np.empty_like(mean_gain), np.empty_like(mean_gain)
        share_hz, band_hz, model = self._share_hz, self.config.broadcast_hz, self.config.rate
        for some, powers in blocks:
            gain = mean_gain[some]
            up[some] = gain * effective_power(per_gain * gain, powers, share_hz, model)
            down[some] = gain * effective_power(down_per_gain * gain, powers, band_hz, model)
        return up, down


class GrantedSnr(NamedTuple):
    """P g / (N0 F) in Hz of a grant: as it was planned with, as it is, and averaged over fading."""

    planned: float
    now: float
    mean: float


def granted_snr_hz(links: Links, grant: Grant, config: CellConfig) -> GrantedSnr:
    """Return the link that a client was granted, at the power it was granted.

    That of the client, or of its own blocks where the grant names them: blocks are given away one
    by one only where they are known, so these are as planned with.
    """
    client, dimmed = grant.client, grant.power_w / config.power_w
    planned, now = float(links.planned_snr_hz[client]), float(links.snr_hz[client])
    if grant.blocks is not None and isinstance(links, SelectiveLinks):
        own = links.block_snr_hz(np.array([client]))[0, list(grant.blocks)]
        planned = now = flat_snr_hz(own, config.rate)
    return GrantedSnr(planned * dimmed, now * dimmed, float(links.mean_snr_hz[client]) * dimmed)


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
        if isinstance(links, SelectiveLinks):
            k, mean = k_factor(config, seen, indoors), links.mean_snr_hz[clients]
            powers = likely_effective_powers(config, mean, k, links.equivalent_hz, count)
        else:
            powers = likely_powers(config, seen, indoors, count)
    return np.asarray(links.mean_snr_hz[clients, None] * powers)


def _ideal(round: int, distance_m: Floats) -> Links:
    one = np.ones_like(distance_m)
    perfect = np.full_like(one, np.inf)
    snrs = perfect, perfect, perfect, perfect
    return Links(round, distance_m, one > 0, one, one, *snrs, one < 0)
