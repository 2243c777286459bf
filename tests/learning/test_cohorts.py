"""How many clients share a pass."""

import pytest

from airtune.learning.cohorts import CohortSizes


def play(sizes, seconds_per_token, clients=10, rounds=12, step_tokens=100):
    """Let a run of rounds choose; ``seconds_per_token`` maps a size to its cost."""
    chosen = []
    for _ in range(rounds):
        waiting = clients
        while waiting:
            size = sizes.choose("work", waiting, step_tokens)
            sizes.record("work", size, 100 * size, 100 * size * seconds_per_token(size))
            chosen.append(size)
            waiting -= size
    return chosen


def test_the_users_word_holds():
    assert set(play(CohortSizes(4, 10**9), lambda size: size)) == {4, 2}


def test_where_side_by_side_is_slower_clients_train_one_by_one():
    chosen = play(CohortSizes(None, 10**9), lambda size: 1.0 + 0.1 * size)
    assert set(chosen[-10:]) == {1}
    assert sum(size > 1 for size in chosen) <= 2, "it was tried out twice, no more"


def test_where_side_by_side_is_faster_cohorts_grow():
    chosen = play(CohortSizes(None, 10**9), lambda size: 1.0 / size, clients=16)
    assert chosen[-1] == 16


def test_growth_stops_where_it_no_longer_pays():
    cost = {1: 1.0, 2: 0.6, 4: 0.5, 8: 0.495, 16: 0.49}
    chosen = play(
        CohortSizes(None, 10**9), lambda size: cost[1 << (size - 1).bit_length()], clients=16
    )
    assert set(chosen[-8:]) == {4}


def test_memory_bounds_the_size():
    assert max(play(CohortSizes(None, 400), lambda size: 1.0 / size)) <= 4
    assert set(play(CohortSizes(None, 10), lambda size: 1.0 / size)) == {1}


@pytest.mark.parametrize(("clients", "expected"), [(10, [5, 5]), (9, [5, 4]), (8, [8]), (3, [3])])
def test_cohorts_are_even(clients, expected):
    sizes = CohortSizes(None, 10**9)
    play(sizes, lambda size: 1.0 / size if size <= 8 else 9.0, clients=64)
    chosen, waiting = [], clients
    while waiting:
        chosen.append(sizes.choose("work", waiting, 100))
        waiting -= chosen[-1]
    assert chosen == expected


def test_one_slow_first_try_does_not_decide():
    sizes = CohortSizes(None, 10**9)
    seconds = iter([50.0])  # the first pass of a process pays for its memory
    chosen = play(sizes, lambda size: next(seconds, 1.0 + 0.2 * size), rounds=20)
    assert set(chosen[-10:]) == {1}
