import math

import pandas as pd
import pytest

from airtune.report.targets import Reached, default_target, to_target


def history(accuracies):
    rounds = range(len(accuracies))
    return pd.DataFrame(
        {
            "round": rounds,
            "accuracy": accuracies,
            "total_uplink_bits": [1000.0 * r for r in rounds],
            "total_seconds": [2.5 * r for r in rounds],
        }
    )


def test_the_default_target_is_95_percent_of_the_best_of_any_run():
    first, second = history([0.1, 0.8, 0.7]), history([0.1, math.nan, 0.6])
    assert default_target([first, second]) == pytest.approx(0.76)
    assert default_target([second]) == pytest.approx(0.57)


def test_without_any_accuracy_there_is_no_default_target():
    unmeasured = history([math.nan, math.nan])
    assert math.isnan(default_target([unmeasured, unmeasured.drop(columns="accuracy")]))
    assert to_target(unmeasured, math.nan) is None


def test_the_first_evaluated_round_at_the_target_counts():
    run = history([0.1, math.nan, 0.5, 0.4, 0.9])
    assert to_target(run, 0.5) == Reached(2, 2000.0, 5.0)
    assert to_target(run, 0.51) == Reached(4, 4000.0, 10.0)
    assert to_target(run, 0.05) == Reached(0, 0.0, 0.0)
    assert to_target(run, 0.91) is None
