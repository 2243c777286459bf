"""Whole resource blocks against every possible division, and against the division of hertz."""

import itertools

import numpy as np
import pytest

from airtune.radio.rate import RateModel, rate_bps
from airtune.scheduling.bandwidth import min_max_delay
from airtune.scheduling.blocks import min_max_blocks

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)
MCS = RateModel(law="mcs")


def finish(bits, snr_hz, start, blocks, model):
    return start + bits / rate_bps(blocks * model.resource_block_hz, snr_hz, model)


def drawn(seed, clients, weakest=4.5):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(1e5, 2e6, clients),
        10 ** rng.uniform(weakest, 8, clients),
        rng.random(clients),
    )


@pytest.mark.parametrize("model", [PLAIN, SHANNON, MCS])
@pytest.mark.parametrize("seed", range(15))
def test_no_division_of_blocks_finishes_earlier(seed, model):
    clients, blocks = 3 + seed % 2, 6 + seed % 4
    bits, snr_hz, start = drawn(seed, clients)
    given = min_max_blocks(bits, snr_hz, start, blocks, model)
    assert given.sum() <= blocks and (given >= 1).all()
    every = [
        counts
        for counts in itertools.product(range(1, blocks + 1), repeat=clients)
        if sum(counts) <= blocks
    ]
    best = finish(bits, snr_hz, start, np.array(every), model).max(axis=1).min()
    assert finish(bits, snr_hz, start, given, model).max() == best


@pytest.mark.parametrize("seed", range(5))
def test_hertz_are_a_bound_from_below_and_blocks_come_near_it(seed):
    bits, snr_hz, start = drawn(seed, 40, weakest=6.5)
    blocks = 2000
    given = min_max_blocks(bits, snr_hz, start, blocks, SHANNON)
    took = finish(bits, snr_hz, start, given, SHANNON).max()
    _, hertz = min_max_delay(bits, snr_hz, start, blocks * 180e3, SHANNON)
    assert hertz.max() * (1 - 1e-9) <= took <= 1.02 * hertz.max()


def test_blocks_go_past_who_is_held_back_by_power():
    # A power over noise of 1e5 Hz fills 316 kHz, two blocks; the others need the rest.
    given = min_max_blocks(1e6, np.array([1e5, 1e9, 1e9]), 0.0, 30, PLAIN)
    assert given[0] <= 2
    assert given.sum() == 30 and abs(given[1] - given[2]) <= 1


def test_what_nobody_gains_by_is_left_over():
    given = min_max_blocks(1e6, np.array([1e5, 1e5]), 0.0, 50, PLAIN)
    assert given.tolist() == [2, 2]


def test_equal_clients_get_equal_blocks_and_the_rest_goes_one_by_one():
    assert sorted(min_max_blocks(1e6, np.full(4, 1e9), 0.0, 14, PLAIN)) == [3, 3, 4, 4]


def test_fewer_blocks_than_clients_are_refused():
    with pytest.raises(ValueError, match="3 clients cannot share 2 resource blocks"):
        min_max_blocks(1e6, np.full(3, 1e9), 0.0, 2, PLAIN)
    assert min_max_blocks(1e6, np.zeros(0), 0.0, 2, PLAIN).size == 0


# ---- rates with flat parts, and what is left over


@pytest.mark.parametrize("model", [PLAIN, MCS])
@pytest.mark.parametrize("seed", range(20))
def test_many_blocks_finish_as_early_as_the_least_time_that_fits(seed, model):
    """Of all times at which somebody may end, the least by which all can, by a table."""
    rng = np.random.default_rng(seed)
    clients, blocks = int(rng.integers(1, 6)), int(rng.integers(6, 60))
    snr_hz = 180e3 * 10 ** rng.uniform(-0.2, 3.0, clients)
    bits, start = rng.uniform(1e6, 2e7, clients), rng.uniform(0, 3, clients)
    each = np.arange(1, blocks + 1)[:, None]
    table = finish(bits, snr_hz, start, each, model)
    table = np.minimum.accumulate(table, axis=0)  # rounding apart it never rises
    fits = [
        time
        for time in np.unique(table)
        if (table[-1] <= time).all() and (table > time).sum() + clients <= blocks
    ]
    given = min_max_blocks(bits, snr_hz, start, blocks, model)
    assert given.sum() <= blocks
    assert finish(bits, snr_hz, start, given, model).max() == pytest.approx(fits[0], rel=1e-12)


def test_a_flat_part_of_the_rate_is_crossed_at_once():
    # The second scheme fills four blocks; the lowest one carries more only from seven on.
    snr_hz = np.array([180e3 * 10**-0.075 * 4.0])
    rates = rate_bps(180e3 * np.arange(1, 11), snr_hz, MCS)
    assert rates[3] == rates[4] == rates[5] < rates[6] == rates[9]
    assert [min_max_blocks(1e7, snr_hz, 0.0, m, MCS)[0] for m in (3, 4, 6, 7, 10)] == [
        3,
        4,
        4,
        7,
        7,
    ]


@pytest.mark.parametrize("model", [PLAIN, MCS])
def test_blocks_are_never_later_than_an_equal_division(model):
    for seed in range(30):
        bits, snr_hz, start = drawn(seed, 10, weakest=5.5)
        given = min_max_blocks(bits, snr_hz, start, 110, model)
        took = finish(bits, snr_hz, start, given, model).max()
        assert took <= finish(bits, snr_hz, start, np.full(10, 11), model).max()


@pytest.mark.parametrize("seed", range(10))
def test_shannons_blocks_are_those_that_go_to_the_slowest_one_by_one(seed):
    bits, snr_hz, start = drawn(seed, 12, weakest=6.5)
    given = np.ones(12, dtype=int)
    for _ in range(200 - 12):
        given[finish(bits, snr_hz, start, given, SHANNON).argmax()] += 1
    assert (min_max_blocks(bits, snr_hz, start, 200, SHANNON) == given).all()


@pytest.mark.parametrize("model", [PLAIN, MCS])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_left_over_helps_nobody(seed, model):
    bits, snr_hz, start = drawn(seed, 6, weakest=5.0)
    given = min_max_blocks(bits, snr_hz, start, 61, model)
    now, left = finish(bits, snr_hz, start, given, model), 61 - given.sum()
    for further in range(1, left + 1):
        assert (finish(bits, snr_hz, start, given + further, model) > now * (1 - 1e-8)).all()


def test_nobody_gets_fewer_blocks_than_its_least():
    least = np.array([1, 20, 1])
    given = min_max_blocks(1e6, np.full(3, 1e9), 0.0, 30, PLAIN, least)
    assert given.tolist() == [5, 20, 5]
    assert min_max_blocks(1e6, np.full(3, 1e9), 0.0, 30, PLAIN, np.array([2, 3, 4])).max() == 10
