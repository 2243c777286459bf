"""From links to grants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.delivery import likely_tries, packet_error_rate, safe_packets
from airtune.radio.grant import Grant
from airtune.radio.rate import in_outage, occupied_hz, rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling.bandwidth import equal_shares, min_max_delay
from airtune.scheduling.plan import Plan

# Maps clients [n] to their shares in Hz and to the bits that each of them is to send, both [n].
Divide = Callable[[Ints], tuple[Floats, Floats]]


def allocate(
    links: Links,
    clients: ArrayLike,
    payload_bits: ArrayLike,
    smallest_bits: ArrayLike,
    compute_seconds: ArrayLike,
    config: CellConfig,
    divide: Divide | None = None,
) -> Plan:
    """Divide the cell's uplink over ``clients`` and say what each may send.

    ``payload_bits`` (what a client means to send), ``smallest_bits`` (its least useful payload)
    and ``compute_seconds`` are scalars or aligned with ``clients``. Clients out of reach are
    skipped. With a deadline, so is the client farthest from its smallest payload, and the
    spectrum is divided anew, until all who remain can send theirs. ``divide`` is a scheduler's own
    rule instead of ``config.allocation``.
    """
    clients = np.asarray(clients, dtype=np.int64)
    order = np.argsort(clients)
    payload, smallest, compute = (
        np.broadcast_to(np.asarray(each, dtype=np.float64), clients.shape)[order]
        for each in (payload_bits, smallest_bits, compute_seconds)
    )
    clients = clients[order]
    if config.ideal:
        width = config.bandwidth_hz / max(clients.size, 1)
        free = {int(c): Grant(int(c), math.inf, config.power_w, width, math.inf) for c in clients}
        return Plan(links.round, free, {})

    snr_hz = links.planned_snr_hz[clients]
    unheard = in_outage(snr_hz, config.rate)
    skipped = {int(client): "outage" for client in clients[unheard]}
    active = np.flatnonzero(~unheard)

    def late(index: int) -> str:
        return f"cannot send {smallest[index]:.0f} bits by the deadline"

    def grants(share: Floats) -> tuple[Floats, Floats]:
        rate = rate_bps(share, snr_hz[active], config.rate)
        return rate, _bits_by_deadline(links, clients[active], rate, share, compute[active], config)

    # Who fails with the whole spectrum fails with any share: this spares divisions below.
    _, most = grants(np.full(active.size, config.bandwidth_hz))
    hopeless = most < smallest[active]
    skipped |= {int(clients[index]): late(index) for index in active[hopeless]}
    active = active[~hopeless]
    while active.size:
        wanted = np.full(active.size, np.inf)
        if divide is not None:
            share, wanted = divide(clients[active])
        elif config.allocation == "equal":
            share = equal_shares(active.size, config.bandwidth_hz)
        else:
            share, _ = min_max_delay(
                payload[active], snr_hz[active], compute[active], config.bandwidth_hz, config.rate
            )
        rate, bits = grants(share)
        if (bits >= smallest[active]).all():
            break
        worst = int(np.argmin(bits / np.maximum(smallest[active], 1.0)))
        skipped[int(clients[active[worst]])] = late(int(active[worst]))
        active = np.delete(active, worst)

    short = wanted < smallest[active] if active.size else np.zeros(0, dtype=np.bool_)
    for index in active[short]:
        reason = f"is allotted less than the {smallest[index]:.0f} bits of its smallest upload"
        skipped[int(clients[index])] = reason
    granted = {
        int(clients[index]): Grant(
            int(clients[index]),
            float(min(bits[k], wanted[k])),
            config.power_w,
            float(share[k]),
            float(rate[k]),
        )
        for k, index in enumerate(active)
        if not short[k]
    }
    return Plan(links.round, granted, dict(sorted(skipped.items())))


def _bits_by_deadline(
    links: Links, clients: Ints, rate: Floats, share: Floats, compute: Floats, config: CellConfig
) -> Floats:
    """Return the bits that arrive by the deadline with the repeats that errors will cost."""
    if config.deadline_s is None:
        return np.full(clients.size, np.inf)
    left = np.maximum(config.deadline_s - compute, 0.0)
    width = occupied_hz(share, links.planned_snr_hz[clients], config.rate)
    q = packet_error_rate(config.packet_error, links.mean_snr_hz[clients] / width)
    packets = rate * left / config.packet_bits
    passes = likely_tries(packets, q, config.max_transmissions, config.combining) - 1.0
    left = np.maximum(left - passes * config.retransmission_delay_s * (q > 0), 0.0)
    packets = safe_packets(rate * left / config.packet_bits, q, config.combining)
    return np.floor(packets * config.packet_bits)
