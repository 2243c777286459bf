"""How SNR and airtime are distributed over the clients and rounds of a preset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.air import Air
from airtune.radio.cell import Cell, Links
from airtune.radio.config import CellConfig
from airtune.radio.units import Floats, Ints
from airtune.scheduling.allocate import allocate

COHORT = 10  # clients that share the band in a round
PAYLOAD_BITS = 1_000_000
DIVISIONS = ("equal", "min-max-delay")
# Of a curve: 99 percentiles, and one in a thousand at each end.
LEVELS = (0.001, *(round(0.01 * step, 2) for step in range(1, 100)), 0.999)
Row = dict[str, Any]


def snr_db(links: Links, config: CellConfig) -> Floats:
    """Return SNRs over a tenth of the band, ``[clients]``, in dB."""
    return np.asarray(10.0 * np.log10(links.snr_hz / (config.bandwidth_hz / COHORT)))


def airtimes(links: Links, clients: Ints, config: CellConfig, air: Air) -> tuple[Floats, float]:
    """Return airtimes of the clients whose payload arrives, and the planned finish of the last.

    All of them share the band and have a payload to send; repeats of packets are in the airtimes,
    not in the plan. Who is in outage is not granted anything, and takes nothing from others.
    """
    plan = allocate(links, clients, PAYLOAD_BITS, PAYLOAD_BITS, 0.0, config)
    trips = [air.uplink(PAYLOAD_BITS, links, grant) for grant in plan.grants.values()]
    planned = [PAYLOAD_BITS / grant.rate_bps for grant in plan.grants.values()]
    return np.array([trip.seconds for trip in trips if trip.arrived]), max(planned, default=0.0)


def curve(values: ArrayLike) -> list[float]:
    """Return the quantiles of ``values`` at ``LEVELS``, to four digits."""
    return [float(f"{value:.4g}") for value in np.quantile(values, LEVELS)]


def distributions(preset: str, clients: int, rounds: int, seeds: tuple[int, ...]) -> Row:
    """Return a preset's quantiles over clients, rounds and seeds, and its share of outages.

    Each round, clients share the band in cohorts of ten; both divisions see the same links.
    """
    base = CellConfig.model_validate(preset)
    configs = {name: base.model_copy(update={"allocation": name}) for name in DIVISIONS}
    seen: list[list[float]] = []
    single: dict[str, list[float]] = {name: [] for name in DIVISIONS}
    last: dict[str, list[float]] = {name: [] for name in DIVISIONS}
    later, asked = 0.0, 0
    for seed in seeds:
        cell, air = Cell(base, clients, seed), Air(base, seed)
        seen.append([])
        for round in range(1, rounds + 1):
            links = cell.links(round)
            seen[-1] += snr_db(links, base).tolist()
            for cohort in np.arange(clients).reshape(-1, COHORT):
                planned = {}
                for name, config in configs.items():
                    seconds, planned[name] = airtimes(links, cohort, config, air)
                    single[name] += seconds.tolist()
                    last[name] += [float(seconds.max())] if seconds.size else []
                asked += COHORT
                if planned["equal"] > 0.0:
                    later = max(later, planned["min-max-delay"] / planned["equal"])
    return {
        "preset": preset,
        "band_hz": base.bandwidth_hz,
        "outage": 1.0 - len(single["equal"]) / asked,
        "snr_db": curve(np.concatenate(seen)),
        "median_snr_db_by_seed": [float(f"{np.median(each):.4g}") for each in seen],
        "client_s": {name: curve(single[name]) for name in DIVISIONS},
        "round_s": {name: curve(last[name]) for name in DIVISIONS},
        "largest_min_max_over_equal": later,
    }
