import numpy as np

from airtune.scheduling.selection import choose_randomly


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
