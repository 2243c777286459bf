import dataclasses
import math

import numpy as np
import pytest

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate


def links_of(config, snr_hz):
    """A round in which clients have just these links."""
    snr_hz = np.array(snr_hz, dtype=float)
    links = Cell(config, snr_hz.size, seed=0).links(0)
    return dataclasses.replace(
        links, snr_hz=snr_hz, mean_snr_hz=snr_hz, planned_snr_hz=snr_hz, downlink_snr_hz=snr_hz
    )


def test_without_a_deadline_everybody_in_reach_may_send_all():
    config = CellConfig(allocation="equal")
    plan = allocate(links_of(config, [1e9, 10.0, 1e8, 1e8]), [3, 1, 0], 1e6, 1e3, 0.0, config)
    assert list(plan.grants) == [0, 3]
    assert plan.skipped == {1: "outage"}
    grant = plan.grants[0]
    assert (grant.bits, grant.bandwidth_hz) == (math.inf, 10e6)
    assert grant.rate_bps == pytest.approx(float(rate_bps(10e6, 1e9, config.rate)))
    assert grant.power_w == config.power_w


def test_deadline_bounds_the_bits():
    config = CellConfig(allocation="equal", deadline_s=2.0, packet_error=0.0)
    plan = allocate(links_of(config, [1e9, 1e8]), [0, 1], 1e6, 1e3, [0.5, 1.0], config)
    rate = rate_bps(10e6, np.array([1e9, 1e8]), config.rate)
    assert plan.grants[0].bits == math.floor(rate[0] * 1.5)
    assert plan.grants[1].bits == math.floor(rate[1] * 1.0)


def test_the_worst_is_dropped_and_the_rest_share_its_spectrum():
    config = CellConfig(allocation="equal", deadline_s=1.0, bandwidth_hz=3e6)
    links = links_of(config, [1e9, 1e9, 1e9])
    # 1 MHz carries 5.55 Mbit in the second: too little for client 2 alone.
    plan = allocate(links, [0, 1, 2], 6e6, [5e6, 5e6, 6e6], 0.0, config)
    assert list(plan.grants) == [0, 1]
    assert plan.skipped == {2: "cannot send 6000000 bits by the deadline"}
    assert plan.grants[0].bandwidth_hz == 1.5e6


def test_computing_past_the_deadline_excludes():
    config = CellConfig(deadline_s=1.0)
    plan = allocate(links_of(config, [1e9, 1e9]), [0, 1], 1e6, 8.0, [2.0, 0.1], config)
    assert list(plan.grants) == [1] and "deadline" in plan.skipped[0]


def test_nobody_to_schedule():
    config = CellConfig()
    assert allocate(links_of(config, [1.0]), [0], 1e6, 1e3, 0.0, config).grants == {}
    assert allocate(links_of(config, [1.0]), [], 1e6, 1e3, 0.0, config).skipped == {}


@pytest.mark.parametrize("error", [0.0, 0.1, "waterfall"])
def test_a_full_grant_arrives_by_the_deadline(error):
    config = CellConfig(packet_error=error, deadline_s=1.0)
    cell, air = Cell(config, 40, seed=0), Air(config, seed=0)
    late = sent = 0
    for round in range(10):
        links = cell.links(round)
        plan = allocate(links, np.arange(40), 1e6, 1e4, 0.2, config)
        for grant in plan.grants.values():
            sent += 1
            late += air.uplink(int(grant.bits), links, grant).seconds > 0.8
    assert sent > 100
    assert late <= 0.01 * sent


def test_statistical_csi_plans_below_the_mean():
    config = CellConfig(csi="statistical", fade_margin_db=6.0, allocation="equal")
    links = Cell(config, 5, seed=0).links(0)
    plan = allocate(links, np.arange(5), 1e6, 1e3, 0.0, config)
    for client, grant in plan.grants.items():
        planned = links.mean_snr_hz[client] * 10**-0.6
        assert grant.rate_bps == pytest.approx(
            float(rate_bps(grant.bandwidth_hz, planned, config.rate))
        )


def test_ideal_cell_grants_without_bound():
    config = CellConfig(ideal=True, deadline_s=1.0)
    plan = allocate(Cell(config, 4, seed=0).links(0), [0, 2], 1e6, 1e3, 5.0, config)
    assert [g.bits for g in plan.grants.values()] == [math.inf, math.inf]
    assert plan.grants[2].bandwidth_hz == 10e6 and plan.grants[2].rate_bps == math.inf
