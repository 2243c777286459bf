import dataclasses
import itertools
import math

import numpy as np
import pytest

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import bandwidth_for_rate_hz, rate_bps
from airtune.scheduling import allocate as module
from airtune.scheduling.allocate import allocate
from airtune.scheduling.deadline import bits_by_deadline


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


# ---- the rules of cell.allocation

RULES = ["equal", "min-max-delay", "resource-blocks", "max-min-rate", "max-sum-rate", "min-energy"]
ERRORS = [0.0, 0.1, "waterfall"]


def planned(rule, round=0, clients=12, payload=1e6, **changes):
    config = CellConfig(allocation=rule, deadline_s=3.0, **changes)
    links = Cell(config, clients, seed=3).links(round)
    compute = np.linspace(0.1, 0.9, clients)
    return config, links, allocate(links, np.arange(clients), payload, 1e3, compute, config)


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_exceeds_the_band_or_the_power(rule):
    for round in range(20):
        config, _, plan = planned(rule, round)
        grants = plan.grants.values()
        assert sum(grant.bandwidth_hz for grant in grants) <= config.bandwidth_hz * (1 + 1e-12)
        assert all(0 < grant.power_w <= config.power_w for grant in grants)
        assert len(plan.grants) + len(plan.skipped) == 12


def test_each_rule_is_best_at_what_it_is_for():
    slowest, rates, total = {}, {}, {}
    for rule in RULES:
        _, _, plan = planned(rule, payload=np.linspace(1e5, 2e6, 12))
        grants = plan.grants.values()
        asked = np.array(list(plan.grants))
        bits, compute = np.linspace(1e5, 2e6, 12)[asked], np.linspace(0.1, 0.9, 12)[asked]
        rate = np.array([grant.rate_bps for grant in grants])
        assert len(rate) == 12
        slowest[rule], rates[rule], total[rule] = (
            (compute + bits / rate).max(),
            rate.min(),
            rate.sum(),
        )
    assert min(slowest, key=slowest.get) == "min-max-delay"
    assert min(set(slowest) - {"min-max-delay"}, key=slowest.get) == "resource-blocks"
    assert max(rates, key=rates.get) == "max-min-rate"
    assert max(total, key=total.get) == "max-sum-rate"


def test_blocks_are_whole_and_at_most_those_there_are():
    config, _, plan = planned("resource-blocks", bandwidth_hz=5e6)
    blocks = np.array([grant.bandwidth_hz for grant in plan.grants.values()]) / 180e3
    assert config.blocks == 27
    assert blocks == pytest.approx(np.round(blocks)) and blocks.sum() <= 27.001
    with pytest.raises(ValueError, match="12 clients cannot share 5 resource blocks"):
        planned("resource-blocks", bandwidth_hz=1e6)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("circuit_w", [0.0, 0.1])
def test_least_energy_keeps_the_deadline_and_saves_energy(error, circuit_w):
    joules, late, sent = {}, 0, 0
    payload = 1_000_000
    changes = {"packet_error": error, "circuit_power_w": circuit_w, "bandwidth_hz": 5e6}
    for rule in ("min-max-delay", "min-energy"):
        joules[rule] = 0.0
        for round in range(8):
            config, links, plan = planned(rule, round, payload=payload, **changes)
            air = Air(config, seed=0)
            for client, grant in plan.grants.items():
                trip = air.uplink(payload, links, grant)
                joules[rule] += trip.joules
                assert trip.status != "outage"
                if rule == "min-energy":
                    assert grant.bits >= payload or grant.power_w == config.power_w
                    sent += 1
                    late += trip.seconds > config.deadline_s - np.linspace(0.1, 0.9, 12)[client]
    assert sent > 60
    assert late <= 0.01 * sent + 1
    assert joules["min-energy"] < 0.8 * joules["min-max-delay"]


def test_least_energy_is_the_least_power_of_the_deadline_where_nothing_else_costs():
    changes = {"packet_error": 0.0, "circuit_power_w": 0.0, "bandwidth_hz": 5e6}
    config, links, plan = planned("min-energy", **changes)
    tight = 0
    for client, grant in plan.grants.items():
        left = 3.0 - np.linspace(0.1, 0.9, 12)[client]
        snr_hz = links.snr_hz[client] * grant.power_w / config.power_w
        assert grant.rate_bps == pytest.approx(
            float(rate_bps(grant.bandwidth_hz, snr_hz, config.rate))
        )
        if snr_hz > 1.001 * grant.bandwidth_hz * 10**-0.5:  # not thinner than -5 dB: no slack
            assert grant.bits == pytest.approx(1e6, rel=1e-4)
            assert grant.rate_bps * left == pytest.approx(1e6, rel=1e-4)
            tight += 1
    assert tight > 3


def test_a_schedulers_own_division_keeps_full_power():
    config = CellConfig(allocation="min-energy", deadline_s=3.0)
    links = links_of(config, [1e9, 1e9])
    divide = lambda clients: (np.full(len(clients), 1e6), np.full(len(clients), 5e3))  # noqa: E731
    plan = allocate(links, [0, 1], 1e4, 1e3, 0.0, config, divide)
    assert [(g.power_w, g.bits) for g in plan.grants.values()] == [(config.power_w, 5e3)] * 2


# ---- a deadline that not all can meet

ORDERED = ["min-max-delay", "max-min-rate", "max-sum-rate", "min-energy"]


def crowded(rule, seed, clients=9, error=0.0, smallest=None, **changes):
    """More clients than a band can serve, alike in nothing."""
    config = CellConfig(
        preset="legacy-macro", allocation=rule, packet_error=error, deadline_s=4.0, **changes
    )
    links = Cell(config, clients, seed).links(1)
    rng = np.random.default_rng(seed)
    least = rng.uniform(20e6, 40e6, clients) if smallest is None else np.full(clients, smallest)
    compute = rng.uniform(0.1, 2.5, clients)
    payload = least * rng.uniform(1.0, 4.0, clients)
    plan = allocate(links, np.arange(clients), payload, least, compute, config)
    return config, links, least, compute, plan


@pytest.mark.parametrize("rule", [*ORDERED, "resource-blocks"])
@pytest.mark.parametrize("seed", range(8))
def test_as_many_are_served_as_any_choice_allows(rule, seed):
    config, links, least, compute, plan = crowded(rule, seed)
    needed = bandwidth_for_rate_hz(least / (4.0 - compute), links.snr_hz, config.rate)
    if rule == "resource-blocks":
        needed = np.ceil(needed / 180e3) * 180e3
    band = config.blocks * 180e3 if rule == "resource-blocks" else config.bandwidth_hz
    most = max(
        len(some)
        for count in range(10)
        for some in itertools.combinations(range(9), count)
        if needed[list(some)].sum() <= band
    )
    assert 2 <= most < 9
    assert len(plan.grants) == most
    assert sum(grant.bandwidth_hz for grant in plan.grants.values()) <= 20e6 * (1 + 1e-12)
    assert all(grant.bits >= least[client] for client, grant in plan.grants.items())
    assert all("by the deadline" in reason for reason in plan.skipped.values())


@pytest.mark.parametrize("rule", ["min-max-delay", "max-min-rate"])
@pytest.mark.parametrize("seed", range(4))
def test_with_packet_errors_one_more_would_not_fit(rule, seed):
    config, links, _, compute, plan = crowded(rule, seed, 20, 0.1, smallest=15e6)
    width = np.geomspace(1e4, 20e6, 4000)
    needed = []
    for client in range(20):
        link = np.full(width.size, links.snr_hz[client])
        left = np.full(width.size, compute[client])
        bits = bits_by_deadline(link, link, width, left, config)
        needed.append(width[np.argmax(bits >= 15e6)] if (bits >= 15e6).any() else np.inf)
    in_order = np.sort(needed).cumsum()
    # The grid is 0.2 % wide: what fits by it is served, and what is served fits but for that.
    served = len(plan.grants)
    assert np.searchsorted(in_order, 20e6) <= served < 20
    assert in_order[served - 1] <= 20e6 * 1.003
    assert set(plan.grants) == set(np.argsort(needed)[:served].tolist())


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("rule", RULES)
def test_who_is_served_does_not_depend_on_numbers(rule, error):
    config = CellConfig(preset="legacy-macro", allocation=rule, packet_error=error, deadline_s=6.0)
    links = Cell(config, 20, seed=1).links(1)
    order = np.random.default_rng(5).permutation(20)
    there = links_of(config, links.snr_hz[order])
    plan, turned = (
        allocate(each, np.arange(20), 20e6, 20e6, 1.0, config) for each in (links, there)
    )
    assert sorted(order[list(turned.grants)]) == list(plan.grants)
    assert 10 < len(plan.grants) < 20


def test_who_computes_long_is_served_too_if_its_smallest_payload_fits():
    # The whole payloads end together long after the deadline; of the last one's little is there.
    config = CellConfig(deadline_s=2.0, packet_error=0.0)
    compute = np.array([0.1, 0.1, 0.1, 1.8])
    plan = allocate(links_of(config, [1e9] * 4), range(4), 2e8, 8e6, compute, config)
    assert list(plan.grants) == [0, 1, 2, 3]
    assert plan.grants[3].bits == pytest.approx(8e6, rel=1e-6)
    assert sum(g.bandwidth_hz for g in plan.grants.values()) == pytest.approx(20e6)
    assert len({plan.grants[k].bandwidth_hz for k in range(3)}) == 1


@pytest.mark.parametrize("rule", [*ORDERED, "resource-blocks"])
def test_the_spectrum_is_divided_a_few_times_however_many_are_skipped(rule, monkeypatch):
    divisions, divide = [], module._shares
    monkeypatch.setattr(module, "_shares", lambda *each: divisions.append(1) or divide(*each))
    changes = {"bandwidth_hz": 75e6} if rule == "resource-blocks" else {}
    *_, plan = crowded(rule, 0, 400, 0.1, 2e6, **changes)
    assert len(plan.skipped) > 20
    assert len(plan.grants) > 10
    assert len(divisions) <= 3
