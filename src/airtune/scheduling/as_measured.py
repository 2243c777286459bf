"""Grants on links that are each client's own and known by measurement: nothing is divided."""

from __future__ import annotations

import math

import numpy as np

from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.measured import MeasuredLinks
from airtune.radio.units import Floats, Ints
from airtune.scheduling.plan import Plan

_SAFE = 2.0  # standard deviations that rates may be lower and delays longer
_AGAIN = 4  # rounds after which a client that was too slow is tried again


def grants_as_measured(
    links: MeasuredLinks,
    clients: Ints,
    smallest: Floats,
    compute: Floats,
    config: CellConfig,
) -> Plan:
    """Grant what arrives by the deadline at a low rate after a long delay (ours), all [n].

    ``bits = (T - rest - 2 s_rest) r exp(-2 s_r) - extra``, T the deadline from order to arrival;
    ``rest`` has computing in it once an exchange was seen, ``compute`` is added before. Who cannot
    send its smallest payload is skipped, and tried with it when its link was not measured for four
    rounds, since nobody measures a link that is not used. Who never was, or seems to have become
    slower, is tried at once.
    """
    seen = np.isfinite(links.rate_bps[clients])
    rate = np.where(seen, links.rate_bps[clients], 0.0)
    bits = np.full(clients.size, np.inf)
    if config.deadline_s is not None:
        rest = links.rest_s[clients] + _SAFE * links.rest_deviation_s[clients]
        unseen = np.where(links.computing_in_rest[clients], 0.0, compute)
        left = config.deadline_s - np.nan_to_num(rest) - unseen
        low = rate * np.exp(-_SAFE * np.where(seen, links.deviation[clients], 0.0))
        extra = np.nan_to_num(links.extra_bits[clients])
        bits = np.floor(np.maximum(left, 0.0) * low - extra)
    tried = ~seen | links.doubted[clients] | (links.age[clients] >= _AGAIN)
    bits = np.where((bits < smallest) & tried, smallest, bits)
    plan = Plan(links.round, {}, {})
    for client, granted, least, speed in zip(map(int, clients), bits, smallest, rate, strict=True):
        if granted < least:
            plan.skipped[client] = f"cannot send {least:.0f} bits by the deadline as measured"
            continue
        known = float(speed) if speed > 0.0 else math.inf
        plan.grants[client] = Grant(client, float(granted), 0.0, 0.0, known)
    return plan
