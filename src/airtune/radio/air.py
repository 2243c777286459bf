"""What a message's trip costs, and whether it arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from airtune.keyed import generator
from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.delivery import Law, sample_arq
from airtune.radio.grant import Grant
from airtune.radio.packet_errors import packet_errors, undecodable
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Bools, Floats, Ints


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

    ``outage``: the link could not carry the granted rate. ``lost``: a packet ran out of tries.
    ``transmissions`` counts packets, repeats included.
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

        ``seconds = bits / r(B_down, min snr_hz)``. Errors of single packets are left out: at the
        worst listener's rate, everybody else has SNR to spare.
        """
        if self.config.ideal:
            return Downlink(0.0, 0.0, math.inf, np.ones(len(listeners), dtype=np.bool_))
        snr_hz = links.downlink_snr_hz[listeners]
        heard = ~in_outage(snr_hz, self.config.rate)
        if not heard.any():
            return Downlink(0.0, 0.0, 0.0, heard)
        worst = snr_hz[heard].min()
        rate = float(rate_bps(self.config.broadcast_hz, worst, self.config.rate))
        seconds = bits / rate
        return Downlink(seconds, self.config.receive_power_w * seconds, rate, heard)

    def uplink(self, bits: int, links: Links, grant: Grant) -> Uplink:
        """Send ``bits`` as granted; the outcome is a function of (seed, round, client) and these.

        On air ``bits / R`` seconds times the mean number of tries per packet, plus a delay for
        each pass of retransmissions; radiated power on air, circuit power throughout. In an
        outage the payload is sent once, in vain: the link carries less than the granted rate, or
        with ``packet_error: bler`` next to no packet.
        """
        config = self.config
        if config.ideal:
            return Uplink(True, "delivered", 0.0, 0.0, _packets(bits, config))
        if grant.rate_bps <= 0.0:
            return Uplink(False, "outage", 0.0, 0.0, 0)
        once = bits / grant.rate_bps
        packets = _packets(bits, config)
        q, law = self._packet_errors(links, grant)
        if self._fades_out(links, grant, q, law):
            joules = once * (grant.power_w + config.circuit_power_w)
            return Uplink(False, "outage", once, joules, packets)
        rng = generator(self.seed, "arq", links.round, grant.client)
        arq = sample_arq(packets, q, config.max_transmissions, rng, law)
        on_air = once * arq.transmissions / max(packets, 1)
        seconds = on_air + config.retransmission_delay_s * max(arq.tries - 1, 0)
        joules = on_air * grant.power_w + seconds * config.circuit_power_w
        status: Literal["delivered", "lost"] = "lost" if arq.lost else "delivered"
        return Uplink(not arq.lost, status, seconds, joules, arq.transmissions)

    def _fades_out(self, links: Links, grant: Grant, q: Floats, law: Law) -> bool:
        config = self.config
        snr_hz = links.snr_hz[grant.client] * grant.power_w / config.power_w
        if in_outage(snr_hz, config.rate):
            return True
        if config.packet_error == "bler":
            return bool(undecodable(q, law, config.max_transmissions))
        carried = rate_bps(grant.bandwidth_hz, snr_hz, config.rate)
        # The slack forgives rounding between the granted and the recomputed rate.
        return bool(carried < grant.rate_bps * (1.0 - 1e-9))

    def _packet_errors(self, links: Links, grant: Grant) -> tuple[Floats, Law]:
        share = grant.power_w / self.config.power_w
        planned, now, mean = (
            snr_hz[grant.client] * share
            for snr_hz in (links.planned_snr_hz, links.snr_hz, links.mean_snr_hz)
        )
        return packet_errors(self.config, grant.bandwidth_hz, planned, now, mean)


def _packets(bits: int, config: CellConfig) -> int:
    return -(-bits // config.packet_bits)
