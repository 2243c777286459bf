"""What a method notes of uploads and rounds: parts sent, queues, what averaging leaves out."""

from __future__ import annotations

import plotly.graph_objects as go

from airtune.report.maps import measure_map
from airtune.report.theme import figure
from airtune.report.view import RunView, floats

# Notes of an upload that have a panel by client and round: title and unit.
_MAPS = {
    "kept": ("Part of the adapter that was sent", ""),
    "drop_error": ("Part of the change that was dropped", ""),
    "queue": ("Virtual queue of latency (s)", " s"),
}
# Notes of a round that share a panel over rounds.
_LINES = {
    "covariance": "relative to the model",
    "covariance_of_change": "relative to its change",
}


def noted_panels(view: RunView) -> dict[str, go.Figure]:
    """Return a panel for each note that this run has, by a name for its place on the page."""
    panels = {}
    for name, (title, unit) in _MAPS.items():
        values = floats(view.uploads, name)
        if values.notna().any():
            panels[name] = measure_map(view, title, values, "Viridis", unit)
    if "queue" in panels:
        seconds = floats(view.uploads, "compute_seconds") + floats(view.uploads, "seconds")
        sent = seconds.where(floats(view.uploads, "bits") > 0)
        title = "Latency: computing and sending (s)"
        panels["latency"] = measure_map(view, title, sent, "Viridis", " s")
    if any(floats(view.history, name).notna().any() for name in _LINES):
        panels["covariance"] = _covariance(view)
    return panels


def _covariance(view: RunView) -> go.Figure:
    panel = figure("Covariance that averaging A and B apart leaves out", 320)
    for name, meaning in _LINES.items():
        values = floats(view.history, name)
        there = values.notna()
        panel.add_trace(
            go.Scatter(
                x=view.history["round"][there].to_numpy(),
                y=values[there].to_numpy(),
                name=meaning,
                mode="lines+markers",
                hovertemplate=f"round %{{x}}: %{{y:.3~r}} {meaning}<extra></extra>",
            )
        )
    panel.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    panel.update_xaxes(title="round")
    panel.update_yaxes(rangemode="tozero")
    return panel
