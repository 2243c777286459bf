"""Blocks that fade differently: against every division of small cases, and through the air."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.radio.air import Air
from airtune.radio.cell import Cell, granted_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.rate import RateModel, in_outage, rate_bps
from airtune.radio.selective import flat_snr_hz
from airtune.scheduling.allocate import allocate
from airtune.scheduling.best_blocks import best_blocks, own_blocks
from airtune.scheduling.goodput import widest_useful_hz
from airtune.scheduling.matching import bottleneck_matching

MODELS = {
    "plain": RateModel(),
    "shannon": RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0),
    "mcs": RateModel(law="mcs"),
}
BLOCK_HZ = 180e3


def drawn(seed, clients, blocks, weakest=4.5):
    rng = np.random.default_rng(seed)
    mean = 10 ** rng.uniform(weakest, 8, (clients, 1))
    bits, start = rng.uniform(1e5, 2e6, clients), 0.3 * rng.random(clients)
    return bits, mean * rng.exponential(1.0, (clients, blocks)), start


def finish(owners, bits, snr_hz, start, model):
    """Return when the last client finishes, [divisions], for ``owners`` [divisions, blocks]."""
    owners, last = np.atleast_2d(owners), 0.0
    for client, snr in enumerate(snr_hz):
        own = owners == client
        counts = own.sum(1)
        rate = np.zeros(len(owners))
        for count in set(counts.tolist()) - {0}:
            carried = rate_bps(BLOCK_HZ, snr / count, model)
            rate = np.where(counts == count, own @ carried, rate)
        with np.errstate(divide="ignore"):
            last = np.maximum(last, start[client] + bits[client] / rate)
    return last


def slowest_first(bits, snr_hz, start, model):
    """The plain heuristic: each its best free block in turn, the slowest first, until none is."""
    clients, blocks = snr_hz.shape
    owner = np.full(blocks, -1)
    for turn in range(blocks):
        times = np.array(
            [
                start[k] + bits[k] / max(carried(owner, k, snr_hz, model), 1e-9)
                for k in range(clients)
            ]
        )
        mean = start + bits / rate_bps(BLOCK_HZ, snr_hz.mean(1), model)
        waiting = ~np.isin(np.arange(clients), owner)
        client = int(np.where(waiting, mean, -1.0).argmax() if turn < clients else times.argmax())
        free = np.flatnonzero(owner == -1)
        owner[free[snr_hz[client, free].argmax()]] = client
    return owner


def carried(owner, client, snr_hz, model):
    own = snr_hz[client, owner == client]
    return float(rate_bps(BLOCK_HZ, own / max(own.size, 1), model).sum())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("clients", "blocks"), [(2, 7), (3, 6), (4, 6)])
def test_beside_every_division_of_small_cases(name, clients, blocks):
    model = MODELS[name]
    every = np.array(list(itertools.product(range(-1, clients), repeat=blocks)))
    ratios, plain = [], []
    for seed in range(20):
        bits, snr_hz, start = drawn(seed, clients, blocks)
        best = finish(every, bits, snr_hz, start, model).min()
        owner = best_blocks(bits, snr_hz, start, model)
        ratios.append(finish(owner, bits, snr_hz, start, model)[0] / best)
        simple = slowest_first(bits, snr_hz, start, model)
        plain.append(finish(simple, bits, snr_hz, start, model)[0] / best)
    assert min(ratios) >= 1 - 1e-12
    assert np.mean(ratios) < 1.03 and max(ratios) < 1.3
    # What it does beyond serving the slowest first is worth its lines.
    assert np.mean(plain) > 1.01 and np.mean(ratios) - 1 < 0.7 * (np.mean(plain) - 1)


@pytest.mark.parametrize("name", MODELS)
def test_one_block_each_is_the_bottleneck_matching(name):
    model = MODELS[name]
    for seed in range(10):
        bits, snr_hz, start = drawn(seed, 8, 8)
        costs = start[:, None] + bits[:, None] / rate_bps(BLOCK_HZ, snr_hz, model)
        matched = costs[np.arange(8), bottleneck_matching(costs)].max()
        owner = best_blocks(bits, snr_hz, start, model)
        assert sorted(owner) == list(range(8))
        assert finish(owner, bits, snr_hz, start, model)[0] == pytest.approx(matched, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_block_of_a_large_case_can_be_taken_or_swapped_to_any_good(seed):
    model = MODELS["plain"]
    bits, snr_hz, start = drawn(seed, 12, 40, weakest=6)
    owner = best_blocks(bits, snr_hz, start, model)
    assert set(range(12)) <= set(owner.tolist())
    last = finish(owner, bits, snr_hz, start, model)[0]
    times = [start[k] + bits[k] / carried(owner, k, snr_hz, model) for k in range(12)]
    slowest = int(np.argmax(times))
    changed = []
    for block in np.flatnonzero(owner != slowest):
        taken = owner.copy()
        taken[block] = slowest
        changed.append(taken)
        for mine in np.flatnonzero(owner == slowest):
            swapped = owner.copy()
            swapped[[block, mine]] = owner[[mine, block]]
            changed.append(swapped)
    assert finish(changed, bits, snr_hz, start, model).min() >= last * (1 - 1e-9)


def test_two_clients_by_hand():
    # Each is good where the other is not. With 2 Mbit and 1 Mbit the first gets two of three.
    snr_hz = np.array([[1e8, 1e8, 1e4, 1e4], [1e4, 1e4, 1e8, 1e8]])
    assert best_blocks(1e6, snr_hz, 0.0, MODELS["plain"]).tolist() == [0, 0, 1, 1]
    alike = np.full((2, 3), 1e9)
    assert sorted(best_blocks([2e6, 1e6], alike, 0.0, MODELS["plain"])) == [0, 0, 1]
    # A client of 1e5 Hz fills two blocks at -5 dB; more would only spread its power.
    weak = np.array([[1e5] * 6])
    assert (best_blocks(1e6, weak, 0.0, MODELS["plain"]) == 0).sum() <= 2


def test_nobody_gets_more_blocks_than_are_of_use():
    for model in MODELS.values():
        bits, snr_hz, start = drawn(3, 6, 30, weakest=6)
        free = np.bincount(best_blocks(bits, snr_hz, start, model) + 1, minlength=7)[1:]
        most = np.array([1, 2, 3, 30, 30, 30])
        bound = np.bincount(best_blocks(bits, snr_hz, start, model, most) + 1, minlength=7)[1:]
        assert (bound <= most).all() and (free > most).any()
        share, _, _ = own_blocks(bits, snr_hz, start, model, most * BLOCK_HZ * 1.5)
        assert (share <= np.maximum(most * 1.5, 1.0) * BLOCK_HZ).all()


def test_with_the_waterfall_shares_end_where_more_is_of_no_use():
    config, cell = cell_of(packet_error="waterfall", power_dbm=-5.0)
    links = cell.links(0)
    asked = np.flatnonzero(~in_outage(links.planned_snr_hz, config.rate))[:4]
    plan = allocate(links, asked, 1e6, 1e3, 0.0, config)
    most = dict(zip(asked, widest_useful_hz(links, asked, config), strict=True))
    assert min(most.values()) < config.bandwidth_hz / 4
    for client, grant in plan.grants.items():
        assert grant.bandwidth_hz <= max(most[client], BLOCK_HZ)


def test_shares_and_flat_snrs_carry_what_the_blocks_do():
    for model in MODELS.values():
        bits, snr_hz, start = drawn(3, 6, 30, weakest=6)
        share, link, own = own_blocks(bits, snr_hz, start, model)
        owner = best_blocks(bits, snr_hz, start, model)
        assert sorted(itertools.chain(*own)) == np.flatnonzero(owner >= 0).tolist()
        for client in range(6):
            rate = float(rate_bps(share[client], link[client], model))
            assert share[client] == len(own[client]) * BLOCK_HZ
            assert rate == pytest.approx(carried(owner, client, snr_hz, model), rel=1e-9)
    # All alike, beyond the cap: the flat SNR is that of the blocks.
    assert flat_snr_hz(np.full(3, 1e12), MODELS["plain"]) == 1e12


def cell_of(allocation="best-blocks", **changes):
    base = {"delay_spread_ns": 100.0, "fading": "rayleigh", "bandwidth_hz": 5e6, "radius_m": 100.0}
    config = CellConfig(**{**base, "allocation": allocation, **changes})
    return config, Cell(config, 600, seed=5, sharing=10)


@pytest.mark.parametrize("law", ["shannon", "mcs"])
def test_grants_are_carried_and_blocks_are_nobody_elses(law):
    config, cell = cell_of(rate={"law": law}, packet_error=0.0)
    asked = np.array([3, 77, 100, 510, 511, 512, 513, 599])
    for round in range(5):
        links = cell.links(round)
        plan = allocate(links, asked, 1e6, 1e4, 0.0, config)
        assert len(plan.grants) + len(plan.skipped) == 8 and len(plan.grants) > 4
        used = [block for grant in plan.grants.values() for block in grant.blocks]
        assert len(used) == len(set(used)) <= config.blocks == 27
        snr_hz = links.block_snr_hz(asked)
        for client, grant in plan.grants.items():
            assert grant.bandwidth_hz == pytest.approx(len(grant.blocks) * BLOCK_HZ)
            own = snr_hz[asked == client][0][list(grant.blocks)]
            by_hand = rate_bps(BLOCK_HZ, own / own.size, config.rate).sum()
            assert grant.rate_bps == pytest.approx(by_hand, rel=1e-9)
            flat = granted_snr_hz(links, grant, config).now
            assert own.min() * (1 - 1e-12) <= flat <= own.max() * (1 + 1e-12)
            trip = Air(config, 0).uplink(10**6, links, grant)
            assert trip.arrived and trip.seconds == pytest.approx(1e6 / grant.rate_bps)


def test_blocks_of_a_link_average_to_its_mean_and_make_its_snr():
    _, cell = cell_of()
    links = cell.links(2)
    powers = links.block_snr_hz(np.arange(600)) / links.mean_snr_hz[:, None]
    assert powers.mean() == pytest.approx(1.0, abs=0.1)
    some = np.array([599, 0, 511, 512])
    blocks = links.block_snr_hz(some)
    assert blocks.shape == (4, 27)
    level = links.equivalent_hz * 10**0.2
    expected = np.expm1(np.log1p(blocks / level).mean(1)) * level
    assert links.snr_hz[some] == pytest.approx(expected, rel=1e-9)


def test_going_by_blocks_finishes_earlier_than_spreading_over_the_band():
    took = {}
    for rule in ("resource-blocks", "best-blocks"):
        config, cell = cell_of(rule, bandwidth_hz=20e6, radius_m=400.0)
        took[rule] = []
        for round in range(15):
            plan = allocate(cell.links(round), np.arange(10), 1e6, 0.0, 0.0, config)
            took[rule].append(max(1e6 / grant.rate_bps for grant in plan.grants.values()))
    assert np.mean(took["best-blocks"]) < 0.6 * np.mean(took["resource-blocks"])


@pytest.mark.parametrize("error", [0.1, "waterfall"])
def test_a_full_grant_arrives_by_the_deadline(error):
    config, cell = cell_of(deadline_s=1.0, packet_error=error)
    late = sent = 0
    for round in range(12):
        links = cell.links(round)
        plan = allocate(links, np.arange(12), 1e6, 1e4, 0.2, config)
        for grant in plan.grants.values():
            trip = Air(config, 0).uplink(int(grant.bits), links, grant)
            sent, late = sent + 1, late + (not trip.arrived or trip.seconds > 0.8)
    assert sent > 100 and late <= 0.01 * sent


def test_fewer_blocks_than_clients_are_refused():
    with pytest.raises(ValueError, match="3 clients cannot share 2 resource blocks"):
        best_blocks(1e6, np.ones((3, 2)), 0.0, MODELS["plain"])
    assert best_blocks(1e6, np.ones((0, 2)), 0.0, MODELS["plain"]).tolist() == [-1, -1]
    cell = {"allocation": "best-blocks", "delay_spread_ns": 100.0, "bandwidth_hz": 1e6}
    with pytest.raises(UserError, match="6 clients a round cannot share the 5 resource"):
        Experiment(cell=cell, clients={"count": 6})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "goes by how blocks fade; set delay_spread_ns"),
        ({"delay_spread_ns": 100.0, "csi": "statistical"}, "csi: statistical does not know"),
    ],
)
def test_what_it_needs_is_named(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        CellConfig(allocation="best-blocks", **keys)
