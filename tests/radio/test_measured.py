"""Estimates of measured links, beside weighted sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from airtune.radio.config import CellConfig
from airtune.radio.measured import GAIN, Ceilings, Rates, Rests, Tracked, measured_links
from airtune.scheduling.allocate import allocate

FIRST = 0.2


def weighted(values, sizes):
    """Mean and variance of values whose weights fall by 1 - GAIN with age, all of them at once."""
    weights = sizes * (1.0 - GAIN) ** np.arange(len(values))[::-1]
    weights /= weights.sum()
    mean = weights @ values
    return mean, weights @ (values - mean) ** 2 + weights[0] * FIRST**2


def test_mean_and_variance_are_those_of_weights_that_fall_with_age():
    draw = np.random.default_rng(3)
    values, sizes = draw.normal(5.0, 1.0, 12), draw.uniform(1.0, 20.0, 12)
    tracked = Tracked(2, FIRST, 1e-9, relative=False)
    for value, size in zip(values, sizes, strict=True):
        tracked.see(1, value, size)
    mean, variance = weighted(values, sizes)
    assert tracked.mean[1] == pytest.approx(mean, rel=1e-12)
    assert tracked.deviation[1] == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert np.isnan(tracked.mean[0])


def test_a_rate_is_what_steady_messages_have_and_gets_surer_with_each():
    rates = Rates(1)
    deviations = []
    for _ in range(10):
        rates.see(0, 8_000, 8_800, 0.0088)
        deviations.append(float(rates.deviation[0]))
    assert rates.rate_bps[0] == pytest.approx(1e6)
    assert rates.extra_bits[0] == pytest.approx(800)
    assert deviations == sorted(deviations, reverse=True) and deviations[-1] < 0.05


def test_a_link_that_changed_is_believed_at_once_and_one_that_wavers_is_not():
    rates = Rates(2)
    for number in range(8):
        rates.see(0, 0, 1_000, 1e-3)
        rates.see(1, 0, 1_000, 1e-3 * (1.1 if number % 2 else 0.9))
    rates.see(0, 0, 1_000, 4e-3)
    rates.see(1, 0, 1_000, 1.2e-3)
    assert rates.rate_bps[0] == pytest.approx(0.25e6)
    assert 0.9e6 < rates.rate_bps[1] < 1.05e6


def test_what_moved_nothing_says_nothing():
    rates = Rates(1)
    rates.see(0, 100, 0, 0.0)
    assert np.isnan(rates.rate_bps[0])


def test_of_an_exchange_that_was_given_up_only_more_than_is_known_counts():
    rests = Rests(1)
    rests.see(0, 10.0)
    rests.see(0, 4.0, at_least=True)
    assert rests.seconds[0] == 10.0
    rests.see(0, 20.0, at_least=True)
    assert rests.seconds[0] == pytest.approx((0.7 * 10.0 + 20.0) / 1.7)


def test_an_exchange_that_lasts_too_long_bounds_the_rate_until_it_is_measured():
    rates, rests, ceilings = Rates(2), Rests(2), Ceilings(2)
    rates.see(0, 20_000_000, 20_000_000, 4.0)  # 5 Mbit/s
    rests.see(0, 10.0)  # and a quarter of that for a deviation
    ceilings.see(0, 3, 20e6, 18.5, rates, rests)  # 3.5 s at least: 5.7 Mbit/s at most
    ceilings.see(0, 3, 20e6, 19.9, rates, rests)  # 4.9 s: slower, but not another link
    ceilings.see(1, 3, 20e6, 99.0, rates, rests)  # of which nothing is known
    assert np.isnan(ceilings.rate_bps).all()
    ceilings.see(0, 4, 20e6, 25.0, rates, rests)
    assert ceilings.rate_bps[0] == pytest.approx(2e6)
    ceilings.see(0, 4, 20e6, 35.0, rates, rests)
    assert ceilings.rate_bps[0] == pytest.approx(1e6)
    found = measured_links(5, rates, rests, np.zeros(2), np.zeros(2), ceilings.rate_bps)
    assert found.rate_bps[0] == pytest.approx(1e6) and found.deviation[0] == pytest.approx(FIRST)
    ceilings.measured(0, 3)
    assert ceilings.rate_bps[0] == pytest.approx(1e6), "what came was of an earlier round"
    ceilings.measured(0, 4)
    assert np.isnan(ceilings.rate_bps[0])
    ceilings.see(0, 6, 20e6, 25.0, rates, rests)
    ceilings.measured(0, 0)  # the device was started again and sounded its link
    assert np.isnan(ceilings.rate_bps[0])


def test_what_goes_up_beside_a_payload_makes_no_link_slower():
    rates, rests, ceilings = Rates(1), Rests(1), Ceilings(1)
    for _ in range(9):
        rates.see(0, 20_000, 30_000, 3.0)
        rests.see(0, 10.0)
    ceilings.see(0, 1, 20_000, 13.0, rates, rests)
    assert np.isnan(ceilings.rate_bps[0])


def test_a_link_that_seems_slower_is_tried_with_the_smallest_payload():
    rates, rests, none = Rates(2), Rests(2), np.zeros(2)
    rates.see(0, 10_000, 10_000, 0.01)
    rates.see(1, 10_000, 10_000, 1.0)
    for client in (0, 1):
        rests.see(client, 1.0)
    for ceiling, expected in ((np.nan, math.floor(2.5e6 * math.exp(-0.4))), (1e4, 9e5)):
        links = measured_links(1, rates, rests, none, none, np.array([ceiling, np.nan]))
        plan = granted_to(links, [0, 1], 9e5, deadline_s=4.0)
        assert plan.grants[0].bits == expected
        assert "as measured" in plan.skipped[1], "it is known to be as slow"


@pytest.fixture
def links():
    """Function that returns links of three clients in a round: 1 and 4 Mbit/s, and not known."""

    def make(round=1, last=(0, 0, 0)):
        rates, rests = Rates(3), Rests(3)
        rates.see(0, 9_000, 10_000, 0.01)
        rates.see(1, 9_000, 10_000, 0.0025)
        rests.see(1, 3.0)
        engine = np.array([2.0, 2.0, np.nan])
        return measured_links(round, rates, rests, engine, np.array(last))

    return make


def granted(links, smallest=1.0, compute=1.0, **cell):
    return granted_to(links, [2, 0, 1], smallest, compute, **cell)


def granted_to(links, clients, smallest=1.0, compute=1.0, **cell):
    config = CellConfig(measured=True, **cell)
    return allocate(links, clients, 8e6, smallest, compute, config)


def test_a_grant_is_what_a_low_rate_carries_in_what_a_long_delay_leaves(links):
    plan = granted(links(), deadline_s=10.0)
    # Two standard deviations: 0.2 of a rate seen once, a quarter of a delay seen once.
    # Client 0 was seen idle only, so computing comes on top.
    left = 10.0 - 2.0 * 1.5 - 1.0
    assert plan.grants[0].bits == math.floor(left * 1e6 * math.exp(-0.4) - 1_000)
    left = 10.0 - 3.0 * 1.5
    assert plan.grants[1].bits == math.floor(left * 4e6 * math.exp(-0.4) - 1_000)
    assert plan.grants[1].rate_bps == pytest.approx(4e6)
    assert plan.grants[2].bits == 1.0 and plan.grants[2].rate_bps == math.inf
    assert list(plan.grants) == [0, 1, 2]


def test_without_a_deadline_nothing_limits_an_upload(links):
    assert all(grant.bits == math.inf for grant in granted(links()).grants.values())


def test_who_cannot_send_the_least_is_skipped_until_nobody_knows_its_link_any_more(links):
    now = [links(round, last=(2, 0, 0)) for round in range(2, 9)]
    fates = [granted(each, smallest=5e6, deadline_s=7.0) for each in now]
    assert [0 in plan.grants for plan in fates] == [False] * 4 + [True] * 3
    assert fates[0].skipped[0] == "cannot send 5000000 bits by the deadline as measured"
    assert fates[4].grants[0].bits == 5e6
    assert all(1 in plan.grants and 2 in plan.grants for plan in fates)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ideal": True}, "links are measured or as ideal says"),
        ({"snr_db": (0.0, 10.0)}, "links are measured or as snr_db says"),
    ],
)
def test_two_sources_of_links_are_refused(keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        CellConfig(measured=True, **keys)
