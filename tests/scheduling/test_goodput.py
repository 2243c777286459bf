"""Packet errors by the waterfall, which grow with bandwidth: what a share is good for."""

import dataclasses

import numpy as np
import pytest

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate
from airtune.scheduling.deadline import bits_by_deadline, least_shares_hz, out_of_reach
from airtune.scheduling.goodput import goodput_bps, widest_useful_hz


def cell_of(snr_db, **changes):
    """Clients with these SNRs over 20 MHz, their means 3 dB higher."""
    config = CellConfig(**{"packet_error": "waterfall", **changes})
    snr_hz = 20e6 * 10 ** (np.array(snr_db) / 10)
    links = dataclasses.replace(
        Cell(config, snr_hz.size, seed=0).links(0),
        snr_hz=snr_hz,
        planned_snr_hz=snr_hz,
        mean_snr_hz=2.0 * snr_hz,
    )
    return config, links, np.arange(snr_hz.size)


@pytest.mark.parametrize("combining", ["none", "chase"])
@pytest.mark.parametrize("law", ["shannon", "mcs"])
def test_no_share_carries_more_than_the_widest_of_use(law, combining):
    config, links, clients = cell_of(
        np.linspace(-20, 25, 10), rate={"law": law}, combining=combining
    )
    widest = widest_useful_hz(links, clients, config)
    best = goodput_bps(links, clients, widest, config)
    grid = np.geomspace(2e3, 20e6, 20_001)
    tried = goodput_bps(links, clients, grid[:, None], config)
    assert (best >= tried.max(0) * (1 - 1e-12)).all()
    assert best == pytest.approx(tried.max(0), rel=1e-3)
    assert (widest <= 20e6).all() and (widest[:3] < 10e6).all() and widest[-1] == 20e6


@pytest.mark.parametrize("limit", [1, 2, 4])
@pytest.mark.parametrize("law", ["shannon", "mcs"])
def test_copies_that_are_forgotten_make_shares_narrower(law, limit):
    how = {"rate": {"law": law}, "combining": "chase", "link_layer": "acknowledged"}
    config, links, clients = cell_of(np.linspace(-20, 25, 10), max_transmissions=limit, **how)
    widest = widest_useful_hz(links, clients, config)
    best = goodput_bps(links, clients, widest, config)
    tried = goodput_bps(links, clients, np.geomspace(2e3, 20e6, 20_001)[:, None], config)
    assert (best >= tried.max(0) * (1 - 1e-12)).all()
    # One try a cycle is no combining at all, and a memory without an end allows most.
    alone, together = (
        widest_useful_hz(links, clients, config.model_copy(update=changes))
        for changes in ({"combining": "none"}, {"max_transmissions": None})
    )
    assert (alone <= widest * (1 + 1e-6)).all() and (widest <= together * (1 + 1e-6)).all()
    if limit == 1:
        assert widest == pytest.approx(alone, rel=1e-5)


def test_the_widest_of_use_by_hand():
    # x log2(1 + 1/x) exp(-v x / 2) over x = b / snr, without gap or cap: its slope vanishes.
    config, links, clients = cell_of([-5.0], rate={"gap_db": 0, "min_snr_db": -30})
    x = widest_useful_hz(links, clients, config)[0] / links.snr_hz[0]
    nats, v = np.log1p(1 / x), 10**0.0023
    assert nats - 1 / (1 + x) == pytest.approx(0.5 * v * x * nats, rel=1e-6)


def test_an_error_rate_that_is_a_number_leaves_the_whole_band():
    config, links, clients = cell_of([-20.0, 0.0, 20.0], packet_error=0.5)
    assert (widest_useful_hz(links, clients, config) == 20e6).all()


def test_goodput_is_what_is_seen_in_the_long_run():
    check_goodput(cell_of([-7.0], retransmission_delay_s=0.0, packet_bits=100))
    layer = {"combining": "chase", "link_layer": "acknowledged", "max_transmissions": 2}
    check_goodput(cell_of([-7.0], retransmission_delay_s=0.0, packet_bits=100, **layer))


def check_goodput(cell):
    config, links, clients = cell
    for share in (1e6, 20e6):
        rate = rate_bps(share, links.snr_hz[0], config.rate)
        config_equal = config.model_copy(update={"allocation": "equal", "bandwidth_hz": share})
        plan = allocate(links, [0], 1e6, 1e3, 0.0, config_equal)
        assert plan.grants[0].rate_bps == pytest.approx(float(rate))
        trip = Air(config_equal, seed=1).uplink(4_000_000, links, plan.grants[0])
        seen = 4e6 / trip.seconds
        assert seen == pytest.approx(
            float(goodput_bps(links, clients, np.array([share]), config)[0]), rel=0.02
        )


def test_who_fails_with_the_whole_band_may_be_served_over_a_part_of_it():
    """At -7 dB over 20 MHz: more arrives over a part of the band than over all of it."""
    config, links, clients = cell_of([-7.0, 20.0], deadline_s=10.0)
    links = dataclasses.replace(links, mean_snr_hz=links.snr_hz)
    smallest, compute = np.array([10e6, 1e6]), np.zeros(2)
    whole = np.full(2, 20e6)
    link = links.planned_snr_hz, links.mean_snr_hz
    assert bits_by_deadline(*link, whole, compute, config)[0] < 1e6
    assert out_of_reach(links, clients, smallest, compute, config) == {}
    assert list(out_of_reach(links, clients, 3 * smallest, compute, config)) == [0]
    least = least_shares_hz(links, clients, smallest, compute, config)
    assert least[0] < 5e6
    assert (bits_by_deadline(*link, least, compute, config) >= smallest).all()
    for rule in ("min-max-delay", "resource-blocks", "max-min-rate", "max-sum-rate"):
        there = config.model_copy(update={"allocation": rule})
        plan = allocate(links, clients, smallest, smallest, compute, there)
        assert list(plan.grants) == [0, 1]
        assert plan.grants[0].bits >= 10e6


@pytest.mark.parametrize("rule", ["min-max-delay", "resource-blocks"])
def test_the_last_upload_is_seldom_later_than_with_equal_shares(rule):
    slowest = {"equal": [], rule: []}
    for seed in range(20):
        for name, found in slowest.items():
            config = CellConfig(preset="legacy-macro", allocation=name, packet_error="waterfall")
            links = Cell(config, 10, seed).links(1)
            grants = allocate(links, np.arange(10), 2e6, 2e6, 0.0, config).grants.values()
            air = Air(config, seed)
            found.append(max(air.uplink(2_000_000, links, each).seconds for each in grants))
    later = np.array(slowest[rule]) > np.array(slowest["equal"])
    assert later.mean() <= 0.2, slowest
    assert np.median(slowest[rule]) < np.median(slowest["equal"])
