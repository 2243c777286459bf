"""From links to grants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.cell import Links, SelectiveLinks
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.measured import MeasuredLinks
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Bools, Floats, Ints
from airtune.scheduling.as_measured import grants_as_measured
from airtune.scheduling.bandwidth import (
    best_snr_shares,
    bounded,
    equal_shares,
    longest_fitting,
    max_min_rate,
    min_max_delay,
)
from airtune.scheduling.best_blocks import own_blocks
from airtune.scheduling.blocks import min_max_blocks
from airtune.scheduling.deadline import (
    bits_by_deadline,
    least_energy_powers_w,
    least_shares_hz,
    out_of_reach,
    too_late,
)
from airtune.scheduling.goodput import widest_useful_hz
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
    skipped. Where the division leaves somebody short of its smallest payload by the deadline, as
    many are served as can be, those first who need the fewest hertz for it, and nobody gets less
    than that. Nobody gets more than is of use where packet errors grow with bandwidth.

    With equal shares, best blocks and a scheduler's own division, ``divide`` instead of
    ``config.allocation``, there is no such choice: the client farthest from its smallest payload is
    skipped and the spectrum divided anew, until none is short. Where blocks are given away one by
    one, a client's link is that of its own. Measured links are not divided.
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
    if isinstance(links, MeasuredLinks):
        return grants_as_measured(links, clients, smallest, compute, config)

    snr_hz = links.planned_snr_hz[clients]
    # Who fails alone in the band fails with any share: this spares divisions below.
    skipped = out_of_reach(links, clients, smallest, compute, config)
    active = np.flatnonzero([int(client) not in skipped for client in clients])
    block_snr_hz = None
    if divide is None and config.allocation == "best-blocks" and isinstance(links, SelectiveLinks):
        block_snr_hz = links.block_snr_hz(clients)

    def grants(link: Floats, share: Floats, dimmed: Floats) -> tuple[Floats, Floats]:
        planned, mean = link * dimmed, links.mean_snr_hz[clients[active]] * dimmed
        bits = bits_by_deadline(planned, mean, share, compute[active], config)
        return rate_bps(share, planned, config.rate), bits

    ordered = divide is None and config.allocation not in ("equal", "best-blocks")
    least: Floats | None = None  # hertz that those need who are to be served, [active]
    most = np.full(active.size, np.inf)
    if config.packet_error == "waterfall":
        most = widest_useful_hz(links, clients[active], config)
    while active.size:
        wanted, link = np.full(active.size, np.inf), snr_hz[active]
        own: list[tuple[int, ...] | None] = [None] * active.size
        if divide is not None:
            share, wanted = divide(clients[active])
        elif block_snr_hz is not None:
            share, link, own = own_blocks(
                payload[active], block_snr_hz[active], compute[active], config.rate, most
            )
        else:
            bounds = np.zeros(active.size) if least is None else least, most
            share = _shares(payload[active], snr_hz[active], compute[active], config, *bounds)
        dimmed = np.ones(active.size)
        rate, bits = grants(link, share, dimmed)
        unheard, late = in_outage(link, config.rate), bits < smallest[active]
        if not (unheard | late).any():
            break
        served = ~unheard
        if unheard.any():
            least = None
        elif not ordered:
            served[np.argmin(bits / np.maximum(smallest[active], 1.0))] = False
        elif least is None:
            there = clients[active]
            least = least_shares_hz(links, there, smallest[active], compute[active], config)
            served = _affordable(least, config)
        else:
            # Rounding comes here, and errors that rise with a share: the neediest of those short.
            served[np.argmax(np.where(late, least, -1.0))] = False
        for k in np.flatnonzero(~served):
            why = "outage" if unheard[k] else too_late(smallest[active[k]])
            skipped[int(clients[active[k]])] = why
        active, most = active[served], most[served]
        least = None if least is None else least[served]
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


def _shares(
    payload: Floats, snr_hz: Floats, compute: Floats, config: CellConfig,
    least: Floats, most: Floats,
) -> Floats:  # fmt: skip
    """Return what ``config.allocation`` gives each client, in Hz, within the bounds [n] in Hz."""
    band, model = config.bandwidth_hz, config.rate
    if config.allocation == "equal":
        return equal_shares(snr_hz.size, band)
    if config.allocation == "resource-blocks":
        whole = np.maximum(np.floor(most / model.resource_block_hz), 1.0)
        bounds = _blocks(least, config), whole
        given = min_max_blocks(payload, snr_hz, compute, config.blocks, model, *bounds)
        return np.asarray(given * model.resource_block_hz)
    if config.allocation == "max-min-rate":
        share = max_min_rate(snr_hz, band, model)
    elif config.allocation == "max-sum-rate":
        share = best_snr_shares(snr_hz, band)
    else:
        share = min_max_delay(payload, snr_hz, compute, band, model)[0]
    return bounded(share, least, most, band)


def _affordable(least: Floats, config: CellConfig) -> Bools:
    """Return whom the spectrum can serve that needs ``least`` hertz each, [n]."""
    if config.allocation == "resource-blocks":
        return longest_fitting(_blocks(least, config), config.blocks)
    return longest_fitting(least, config.bandwidth_hz)


def _blocks(least: Floats, config: CellConfig) -> Ints:
    """Return the whole resource blocks that have ``least`` hertz, at least one each."""
    return np.maximum(np.ceil(least / config.rate.resource_block_hz), 1.0).astype(np.int64)
