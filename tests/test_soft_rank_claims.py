"""Claims on the offline choice are computed as they are worded."""

from benchmarks.soft.rank import claims


def sweep(*accuracies):
    """Ranks 1, 2, 4, 8 of one seed or more."""
    return {
        rank: {seed: {"accuracy": [0.5, value]} for seed, value in enumerate(by_seed)}
        for rank, by_seed in zip((1, 2, 4, 8), accuracies, strict=True)
    }


def by_id(found):
    return {each["id"]: each for each in found}


def test_a_choice_is_judged_by_its_own_seed():
    table = sweep((0.6, 0.7), (0.7, 0.6), (0.65, 0.6), (0.6, 0.5))
    found = by_id(claims(table, {"pilot": {0: {"chosen": 4}, 1: {"chosen": 4}}}))
    assert found["rank-pilot"]["measured"] == [1, 2]
    assert found["rank-pilot"]["holds"] is False
    assert found["rank-pilot-regret"]["measured"] == [0.05, 0.1]
    near = by_id(claims(table, {"pilot": {0: {"chosen": 1}, 1: {"chosen": 2}}}))
    assert near["rank-pilot"]["measured"] == [-1, 1]
    assert near["rank-pilot"]["holds"] is True


def test_the_shape_is_that_of_the_mean():
    assert by_id(claims(sweep((0.6,), (0.7,), (0.65,), (0.6,)), {}))["rank-shape"]["holds"] is True
    assert by_id(claims(sweep((0.5,), (0.6,), (0.7,), (0.8,)), {}))["rank-shape"]["holds"] is False
