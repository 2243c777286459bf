"""Matchings against all permutations."""

import itertools

import numpy as np
import pytest

from airtune.errors import UserError
from airtune.scheduling.matching import bottleneck_matching, least_sum_matching


def every(costs):
    clients, channels = costs.shape
    for channel in itertools.permutations(range(channels), clients):
        yield costs[np.arange(clients), channel]


def paid(costs, channel):
    assert len(set(channel.tolist())) == len(costs)
    return costs[np.arange(len(costs)), channel]


@pytest.mark.parametrize("seed", range(60))
def test_no_permutation_is_better(seed):
    rng = np.random.default_rng(seed)
    clients = int(rng.integers(1, 6))
    channels = clients + int(rng.integers(0, 2))
    # Whole numbers have ties, exponential ones a long tail; some pairs are forbidden.
    shape = (clients, channels)
    costs = rng.integers(0, 6, shape).astype(float) if seed % 2 else rng.exponential(1.0, shape)
    costs[rng.random(shape) < 0.2] = np.inf
    sums, largest = zip(*((each.sum(), each.max()) for each in every(costs)), strict=True)
    if min(sums) == np.inf:
        for rule in (least_sum_matching, bottleneck_matching):
            with pytest.raises(ValueError, match=f"no matching gives each of {clients} clients"):
                rule(costs)
        return
    assert paid(costs, least_sum_matching(costs)).sum() == pytest.approx(min(sums))
    slowest = paid(costs, bottleneck_matching(costs))
    assert slowest.max() == min(largest)
    within = min(s for s, m in zip(sums, largest, strict=True) if m == min(largest))
    assert slowest.sum() == pytest.approx(within)


def test_the_least_sum_is_not_the_least_maximum():
    costs = np.array([[0.0, 6.0], [6.0, 10.0]])
    assert least_sum_matching(costs).tolist() == [0, 1]  # 10 in all, the slowest takes 10
    assert bottleneck_matching(costs).tolist() == [1, 0]  # 12 in all, the slowest takes 6


def test_more_clients_than_channels_cannot_be_matched():
    for rule in (least_sum_matching, bottleneck_matching):
        with pytest.raises(ValueError, match="3 clients one of 2"):
            rule(np.ones((3, 2)))
        assert rule(np.zeros((0, 4))).size == 0


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_costs_that_are_no_numbers_are_refused(value):
    costs = np.ones((2, 3))
    costs[1, 2] = value
    for rule in (least_sum_matching, bottleneck_matching):
        with pytest.raises(UserError, match=f"costs has {value:g} for client 1 and sub-channel 2"):
            rule(costs)
