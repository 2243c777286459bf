"""Whole resource blocks against every possible division, and against the division of hertz."""

import itertools

import numpy as np
import pytest

from airtune.radio.rate import RateModel, rate_bps
from airtune.scheduling.bandwidth import min_max_delay
from airtune.scheduling.blocks import min_max_blocks

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)


def finish(bits, snr_hz, start, blocks, model):
    return start + bits / rate_bps(blocks * model.resource_block_hz, snr_hz, model)


def drawn(seed, clients, weakest=4.5):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(1e5, 2e6, clients),
        10 ** rng.uniform(weakest, 8, clients),
        rng.random(clients),
    )


@pytest.mark.parametrize("model", [PLAIN, SHANNON])
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
