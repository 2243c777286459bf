"""Panels of what a method notes."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from airtune.report.html import report_html
from airtune.report.noted import noted_panels


def test_a_run_without_notes_has_no_such_panels(make_view):
    view = make_view(rounds=2)
    assert noted_panels(view) == {}
    assert noted_panels(replace(view, uploads=pd.DataFrame())) == {}


def test_kept_parts_queues_and_latency_by_client_and_round(make_view):
    view = make_view(rounds=3, clients=4)
    uploads = view.uploads.copy()
    uploads["kept"] = [0.125 * (i % 8 + 1) for i in range(len(uploads))]
    uploads["queue"] = [float(i) for i in range(len(uploads))]
    view = replace(view, uploads=uploads)
    panels = noted_panels(view)
    assert set(panels) == {"kept", "queue", "latency"}
    (cells,) = panels["queue"].data
    assert cells.z.shape == (4, 3)
    first = uploads[(uploads["client"] == 0) & (uploads["round"] == 1)].iloc[0]
    (seconds,) = panels["latency"].data
    expected = first["compute_seconds"] + first["seconds"]
    assert math.isclose(float(seconds.z[0][0]), expected, rel_tol=1e-5) or first["bits"] == 0
    assert "Virtual queue" in report_html([view])


def test_how_steep_importance_is_by_round(make_view):
    view = make_view(rounds=2, clients=3)
    uploads = view.uploads.copy()
    uploads["top_quarter"] = [0.3, 0.4, 0.5, 0.6, math.nan, 0.9]
    uploads["top_half"] = 0.75
    panel = noted_panels(replace(view, uploads=uploads))["spectrum"]
    lines = {line.name: line for line in panel.data}
    assert list(lines["best quarter"].x) == [1, 2]
    assert list(lines["best quarter"].y) == pytest.approx([0.4, 0.75])  # of those who say
    assert list(lines["best half"].y) == [0.75, 0.75]
    dotted = [shape.y0 for shape in panel.layout.shapes]
    assert {0.25, 0.5} <= set(dotted)  # where all weigh alike
    assert "best components" in report_html([replace(view, uploads=uploads)])


def test_covariance_over_rounds(make_view):
    view = make_view(rounds=3)
    history = view.history.copy()
    history["covariance"] = [math.nan, 0.9, 0.5, 0.25]
    history["covariance_of_change"] = [math.nan, 0.4, 0.3, 0.2]
    (model, change) = noted_panels(replace(view, history=history))["covariance"].data
    assert list(model.x) == [1, 2, 3] and list(model.y) == [0.9, 0.5, 0.25]
    assert list(change.y) == [0.4, 0.3, 0.2]
