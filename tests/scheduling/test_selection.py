import numpy as np
import pytest

from airtune.scheduling.selection import (
    average_rates,
    choose_best,
    choose_feasible,
    choose_in_turn,
    choose_proportionally_fair,
    choose_randomly,
)


def test_chosen_are_distinct_sorted_and_repeatable():
    chosen = choose_randomly(100, 10, seed=1, round=4)
    assert np.array_equal(chosen, np.unique(chosen)) and chosen.size == 10
    assert np.array_equal(chosen, choose_randomly(100, 10, seed=1, round=4))
    assert not np.array_equal(chosen, choose_randomly(100, 10, seed=1, round=5))


def test_everybody_if_there_are_too_few():
    assert choose_randomly(3, 10, seed=0, round=0).tolist() == [0, 1, 2]


def test_every_client_is_equally_likely():
    counts = np.zeros(8)
    for round in range(4000):
        counts[choose_randomly(8, 2, seed=0, round=round)] += 1
    assert np.allclose(counts / 4000, 0.25, atol=0.03)


# ---- in turn


def test_turns_by_hand():
    turns = [choose_in_turn(5, 2, round).tolist() for round in range(1, 6)]
    assert turns == [[0, 1], [2, 3], [0, 4], [1, 2], [3, 4]]
    assert choose_in_turn(3, 10, 7).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("population", "count"), [(12, 5), (7, 7), (100, 1)])
def test_turns_are_shared_evenly(population, count):
    counts = np.zeros(population, dtype=int)
    for round in range(1, population + 1):
        chosen = choose_in_turn(population, count, round)
        assert np.array_equal(chosen, np.unique(chosen)) and chosen.size == count
        counts[chosen] += 1
        assert np.ptp(counts) <= 1
    assert (counts == count).all()


# ---- by links


def test_the_best_are_the_best_and_ties_go_by_index():
    assert choose_best(np.array([1.0, 5.0, 5.0, 9.0, 5.0]), 3).tolist() == [1, 2, 3]
    assert choose_best(np.array([1.0, 2.0]), 5).tolist() == [0, 1]


def test_fair_choice_by_hand():
    rate, average = np.array([10.0, 20.0, 0.0, 3.0, 5.0]), np.array([5.0, 40.0, 0.0, 0.0, 0.0])
    # Relative rates are 2, 0.5, none, and without end for the last two, who had nothing yet.
    assert choose_proportionally_fair(rate, average, 1).tolist() == [4]
    assert choose_proportionally_fair(rate, average, 3).tolist() == [0, 3, 4]
    assert choose_proportionally_fair(rate, average, 4).tolist() == [0, 1, 3, 4]
    served = np.array([True, False, False, True, False])
    after = average_rates(average, rate, served, 10.0)
    assert after == pytest.approx([5.5, 36.0, 0.0, 0.3, 0.0])


def rounds_served(rule, mean, rounds=3000):
    """How often each of the links is served, one at a time, over the same Rayleigh fading."""
    rng, average = np.random.default_rng(0), np.zeros(mean.size)
    counts, carried = np.zeros(mean.size), np.zeros(mean.size)
    for round in range(1, rounds + 1):
        rate = np.log2(1.0 + mean * rng.exponential(1.0, mean.size))
        chosen = {
            "fair": lambda r=rate, a=average: choose_proportionally_fair(r, a, 1),
            "best": lambda r=rate: choose_best(r, 1),
            "turn": lambda t=round: choose_in_turn(mean.size, 1, t),
        }[rule]()
        served = np.isin(np.arange(mean.size), chosen)
        average = average_rates(average, rate, served, 100.0)
        counts += served
        carried += np.where(served, rate, 0.0) / rounds
    return counts / rounds, carried


def test_fairness_gives_unequal_links_like_shares_and_more_than_turns():
    mean = np.array([0.5, 2.0, 8.0, 32.0])
    fair, carried = rounds_served("fair", mean)
    assert fair.min() > 0.15
    best, most = rounds_served("best", mean)
    assert best.min() < 0.01
    _, turned = rounds_served("turn", mean)
    # It is for the sum of logarithms: above turns, and above the best link's monopoly.
    assert np.log(carried).sum() > np.log(turned).sum() + 0.5
    assert np.log(carried).sum() > np.log(np.maximum(most, 1e-6)).sum() + 0.5
    assert (carried > turned).all()


# ---- those who can


def test_feasible_places_are_filled_at_random_and_the_rest_is_named():
    feasible = np.array([True, False, True, True, False, True])
    counts = np.zeros(6)
    for round in range(3000):
        chosen, unable = choose_feasible(feasible, 2, 0, round)
        assert chosen.size == 2 and unable.size == 0 and feasible[chosen].all()
        counts[chosen] += 1
    assert np.allclose(counts / 3000, np.where(feasible, 0.5, 0.0), atol=0.03)
    chosen, unable = choose_feasible(feasible, 5, 0, 1)
    assert chosen.tolist() == [0, 2, 3, 5] and unable.size == 1 and not feasible[unable].any()
    chosen, unable = choose_feasible(np.zeros(6, dtype=bool), 4, 0, 1)
    assert chosen.size == 0 and np.unique(unable).size == 4
