"""Claims on the offline choice are computed as they are worded."""

import pytest

from benchmarks.soft.rank import claims, with_normalised


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
    assert found["6-pilot"]["measured"] == [1, 2]
    assert found["6-pilot"]["holds"] is False
    assert found["6-pilot-regret"]["measured"] == [0.05, 0.1]
    near = by_id(claims(table, {"pilot": {0: {"chosen": 1}, 1: {"chosen": 2}}}))
    assert near["6-pilot"]["measured"] == [-1, 1]
    assert near["6-pilot"]["holds"] is True


def test_the_shape_is_that_of_the_mean():
    assert by_id(claims(sweep((0.6,), (0.7,), (0.65,), (0.6,)), {}))["6-shape"]["holds"] is True
    assert by_id(claims(sweep((0.5,), (0.6,), (0.7,), (0.8,)), {}))["6-shape"]["holds"] is False


def test_the_normalised_choice_is_made_of_the_terms_that_were_measured():
    phi, dropped, covariance = [0.8, 0.4, 0.1], [0.0, 0.1, 0.2], [0.1, 0.2, 0.3]
    rows = [
        {"rank": rank, "phi": p, "dropped": d, "covariance": c}
        for rank, p, d, c in zip((2, 4, 8), phi, dropped, covariance, strict=True)
    ]
    found = with_normalised({"ranks": rows, "chosen": 2})
    assert found["u"] == pytest.approx([8 + 0 + 1 / 3, 4 + 0.5 + 2 / 3, 3.0])
    assert found["chosen"] == 8
