"""What a message's trip costs, and whether it arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from airtune.keyed import generator
from airtune.radio.cell import Links, granted_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.delivery import Law, sample_arq
from airtune.radio.grant import Grant
from airtune.radio.packet_errors import packet_errors, undecodable
from airtune.radio.rate import in_outage, occupied_hz, rate_bps
from airtune.radio.units import Bools, Floats, Ints

# The slack forgives rounding between a planned rate and the recomputed one.
_ROUNDED = 1.0 - 1e-9


@dataclass(frozen=True)
class Downlink:
    """A broadcast: its duration, each listener's energy, its rate, and who heard it.

    ``heard`` is aligned with the listeners asked for; one who missed it pays the energy too.
    """

    seconds: float
    joules: float
    rate_bps: float
    heard: Bools


@dataclass(frozen=True)
class Uplink:
    """One client's upload; the seconds and joules of a lost one are spent all the same.

    ``outage``: the link could not carry the granted rate. ``lost``: a packet ran out of tries,
    which in acknowledged mode none does. ``transmissions`` counts packets, repeats included.
    """

    arrived: bool
    status: Literal["delivered", "outage", "lost"]
    seconds: float
    joules: float
    transmissions: int


class Air:
    """The air of a cell: moves bits, charges seconds and joules, judges no deadline."""

    def __init__(self, config: CellConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def downlink(self, bits: int, links: Links, listeners: Ints) -> Downlink:
        """Broadcast ``bits`` at the rate of the worst listener that can be reached at all.

        ``seconds = bits / r(B_down, min snr_hz)`` over SNRs as the server knows them: with
        statistical CSI the mean less the fade margin, and who fades below the rate has not heard.
        Errors of single packets are left out: at the worst listener's rate, everybody else has
        SNR to spare.
        """
        config = self.config
        if config.ideal or config.measured:
            joules = math.nan if config.measured else 0.0  # what machines draw is not known
            return Downlink(0.0, joules, math.inf, np.ones(len(listeners), dtype=np.bool_))
        snr_hz = links.downlink_snr_hz[listeners]
        heard = ~in_outage(snr_hz, config.rate)
        planned, reached = snr_hz, heard
        if config.csi == "statistical":
            planned = self._downlink_over_uplink() * links.planned_snr_hz[listeners]
            reached = ~in_outage(planned, config.rate)
        if not reached.any():
            return Downlink(0.0, 0.0, 0.0, np.zeros_like(heard))
        rate = float(rate_bps(config.broadcast_hz, planned[reached].min(), config.rate))
        if config.csi == "statistical":
            heard &= rate_bps(config.broadcast_hz, snr_hz, config.rate) >= rate * _ROUNDED
        seconds = bits / rate
        return Downlink(seconds, config.receive_power_w * seconds, rate, heard)

    def uplink(self, bits: int, links: Links, grant: Grant, draw: str = "arq") -> Uplink:
        """Send ``bits`` as granted; the outcome is a function of (seed, round, client) and these.

        ``draw`` names the draw of lost packets, one for each message of a client in a round.

        On air ``bits / R`` seconds times the mean number of tries per packet, plus a delay for
        each pass of retransmissions; radiated power on air, circuit power throughout. In an
        outage the payload is sent once, in vain: the link carries less than the granted rate, or
        with ``packet_error: bler`` next to no packet.
        """
        config = self.config
        if config.ideal:
            return Uplink(True, "delivered", 0.0, 0.0, _packets(bits, config))
        if config.measured:  # carried by other means, and here for as long as it is foreseen
            return Uplink(True, "delivered", bits / grant.rate_bps, math.nan, 0)
        if grant.rate_bps <= 0.0:
            return Uplink(False, "outage", 0.0, 0.0, 0)
        once = bits / grant.rate_bps
        packets = _packets(bits, config)
        snr_hz = granted_snr_hz(links, grant, config)
        q, law = packet_errors(config, grant.bandwidth_hz, *snr_hz)
        if self._fades_out(snr_hz.now, grant, q, law):
            joules = once * (grant.power_w + config.circuit_power_w)
            return Uplink(False, "outage", once, joules, packets)
        rng = generator(self.seed, draw, links.round, grant.client)
        arq = sample_arq(packets, q, config.max_transmissions, rng, law, config.link_layer)
        on_air = once * arq.transmissions / max(packets, 1)
        seconds = on_air + config.retransmission_delay_s * max(arq.tries - 1, 0)
        joules = on_air * grant.power_w + seconds * config.circuit_power_w
        status: Literal["delivered", "lost"] = "lost" if arq.lost else "delivered"
        return Uplink(not arq.lost, status, seconds, joules, arq.transmissions)

    def _downlink_over_uplink(self) -> float:
        """Return the ratio of the SNRs of a link, whose gain is the same both ways."""
        config = self.config
        down = config.base_station_power_w / config.client_noise_w_per_hz
        return down / (config.power_w / config.noise_w_per_hz)

    def snr_db(self, links: Links, grant: Grant) -> float:
        """Return a grant's SNR over the part of its share that power fills, -inf of a dead link."""
        link = granted_snr_hz(links, grant, self.config)
        filled = grant.bandwidth_hz
        if not self.config.ideal:
            filled = float(occupied_hz(filled, link.planned, self.config.rate))
        # A replayed link may be dead, and with statistical CSI nobody knew when it was granted.
        snr = link.now / filled if filled > 0.0 else 0.0
        return 10.0 * math.log10(snr) if snr > 0.0 else -math.inf

    def _fades_out(self, snr_hz: float, grant: Grant, q: Floats, law: Law) -> bool:
        config = self.config
        if in_outage(snr_hz, config.rate):
            return True
        if config.packet_error == "bler":
            return bool(undecodable(q, law, config.max_transmissions))
        carried = rate_bps(grant.bandwidth_hz, snr_hz, config.rate)
        return bool(carried < grant.rate_bps * _ROUNDED)


def _packets(bits: int, config: CellConfig) -> int:
    return -(-bits // config.packet_bits)
