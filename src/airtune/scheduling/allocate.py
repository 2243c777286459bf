"""From links to grants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.cell import Links, SelectiveLinks
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling.bandwidth import (
    best_snr_shares,
    equal_shares,
    max_min_rate,
    min_max_delay,
)
from airtune.scheduling.best_blocks import own_blocks
from airtune.scheduling.blocks import min_max_blocks
from airtune.scheduling.deadline import (
    bits_by_deadline,
    least_energy_powers_w,
    out_of_reach,
    too_late,
)
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
    rule instead of ``config.allocation``. Where blocks are given away one by one, a client's link
    is that of its own.
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
    # Who fails with the whole spectrum fails with any share: this spares divisions below.
    skipped = out_of_reach(links, clients, smallest, compute, config)
    active = np.flatnonzero([int(client) not in skipped for client in clients])
    block_snr_hz = None
    if divide is None and config.allocation == "best-blocks" and isinstance(links, SelectiveLinks):
        block_snr_hz = links.block_snr_hz(clients)

    def grants(link: Floats, share: Floats, dimmed: Floats) -> tuple[Floats, Floats]:
        planned, mean = link * dimmed, links.mean_snr_hz[clients[active]] * dimmed
        bits = bits_by_deadline(planned, mean, share, compute[active], config)
        return rate_bps(share, planned, config.rate), bits

    while active.size:
        wanted, link = np.full(active.size, np.inf), snr_hz[active]
        own: list[tuple[int, ...] | None] = [None] * active.size
        if divide is not None:
            share, wanted = divide(clients[active])
        elif block_snr_hz is not None:
            share, link, own = own_blocks(
                payload[active], block_snr_hz[active], compute[active], config.rate
            )
        else:
            share = _shares(payload[active], snr_hz[active], compute[active], config)
        dimmed = np.ones(active.size)
        rate, bits = grants(link, share, dimmed)
        unheard = in_outage(link, config.rate)
        if unheard.any():
            skipped |= {int(client): "outage" for client in clients[active[unheard]]}
            active = active[~unheard]
            continue
        if (bits >= smallest[active]).all():
            break
        worst = int(np.argmin(bits / np.maximum(smallest[active], 1.0)))
        skipped[int(clients[active[worst]])] = too_late(smallest[active[worst]])
        active = np.delete(active, worst)
    if divide is None and config.allocation == "min-energy" and active.size:
        power = least_energy_powers_w(
            links, clients[active], share, payload[active], compute[active], config
        )
        dimmed = power / config.power_w
        rate, bits = grants(link, share, dimmed)

    short = wanted < smallest[active] if active.size else np.zeros(0, dtype=np.bool_)
    for index in active[short]:
        reason = f"is allotted less than the {smallest[index]:.0f} bits of its smallest upload"
        skipped[int(clients[index])] = reason
    granted = {
        int(clients[index]): Grant(
            int(clients[index]),
            float(min(bits[k], wanted[k])),
            float(dimmed[k] * config.power_w),
            float(share[k]),
            float(rate[k]),
            own[k],
        )
        for k, index in enumerate(active)
        if not short[k]
    }
    return Plan(links.round, granted, dict(sorted(skipped.items())))


def _shares(payload: Floats, snr_hz: Floats, compute: Floats, config: CellConfig) -> Floats:
    """Return what ``config.allocation`` gives each client, in Hz."""
    band, model = config.bandwidth_hz, config.rate
    if config.allocation == "equal":
        return equal_shares(snr_hz.size, band)
    if config.allocation == "resource-blocks":
        given = min_max_blocks(payload, snr_hz, compute, config.blocks, model)
        return np.asarray(given * model.resource_block_hz)
    if config.allocation == "max-min-rate":
        return max_min_rate(snr_hz, band, model)
    if config.allocation == "max-sum-rate":
        return best_snr_shares(snr_hz, band)
    return min_max_delay(payload, snr_hz, compute, band, model)[0]
