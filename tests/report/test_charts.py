import math

import numpy as np
import pytest

from airtune.report.charts import cost_curves


def test_three_panels_with_a_line_per_run_and_a_dashed_one_for_personal_accuracy(make_view):
    views = [make_view("a", seed=1), make_view("b", seed=2, personal=False)]
    panels = cost_curves(views, target=0.7)
    assert [panel.layout.title.text for panel in panels] == [
        "Accuracy against uplink",
        "Accuracy against simulated time",
        "Accuracy against energy",
    ]
    for panel in panels:
        assert [trace.line.dash for trace in panel.data] == ["solid", "dash", "solid"]
        colours = [trace.line.color for trace in panel.data]
        assert colours[0] == colours[1] != colours[2]
        assert [shape.y0 for shape in panel.layout.shapes] == [0.7]


def test_a_line_runs_across_unevaluated_rounds(make_view):
    view = make_view(rounds=9, evaluate_every=4, personal=False)
    line = cost_curves([view])[0].data[0]
    evaluated = view.history.iloc[[0, 4, 8, 9]]
    np.testing.assert_allclose(line.x, evaluated["total_uplink_bits"] / 1e6)
    np.testing.assert_allclose(line.y, evaluated["accuracy"])
    assert line.text[1].startswith("round 4: accuracy")


def test_language_models_get_perplexity_too(make_view):
    panels = cost_curves([make_view(causal=True)])
    assert len(panels) == 6
    assert panels[3].layout.title.text == "Perplexity against uplink"


def test_alignment_is_drawn_as_the_reward_by_clients_own_weights(make_view):
    """Such a run may have no accuracy at all, and its rewards may be negative or zero."""
    view = make_view(personal=False, rounds=3)
    view.history["accuracy"] = None
    assert cost_curves([view]) == []
    view.history["personal_reward"] = [-0.5, 0.0, 0.25, 1.0]
    panels = cost_curves([view])
    assert [panel.layout.title.text for panel in panels] == [
        "Clients' reward against uplink",
        "Clients' reward against simulated time",
        "Clients' reward against energy",
    ]
    (line,) = panels[0].data
    np.testing.assert_allclose(line.y, [-0.5, 0.0, 0.25, 1.0])
    assert panels[0].layout.yaxis.type != "log"
    assert line.text[2].startswith("round 2: personal reward 0.25")


def test_costs_far_apart_share_a_log_axis_without_the_free_round(make_view):
    panel = cost_curves([make_view(payload_bits=1e6), make_view(payload_bits=1e8)])[0]
    assert panel.layout.xaxis.type == "log"
    assert all(min(trace.x) > 0 for trace in panel.data)


def test_a_cost_that_nobody_paid_is_said_not_drawn(make_view):
    view = make_view()
    view.history["total_joules"] = 0.0
    energy = cost_curves([view])[2]
    assert not energy.data
    assert energy.layout.annotations[0].text == "No energy was charged."


@pytest.mark.parametrize("rounds", [1, 2])
def test_short_runs_have_marked_points(make_view, rounds):
    line = cost_curves([make_view(rounds=rounds)])[0].data[0]
    assert len(line.x) == rounds + 1
    assert "markers" in line.mode


def test_unmeasured_runs_have_no_curves(make_view):
    view = make_view(personal=False)
    view.history["accuracy"] = math.nan
    assert cost_curves([view]) == []
