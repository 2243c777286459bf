"""What a method notes of uploads and rounds: parts sent, queues, what averaging leaves out."""

from __future__ import annotations

import plotly.graph_objects as go

from airtune.report.maps import measure_map
from airtune.report.theme import figure, run_colour
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
# Notes of an upload whose means over clients share a panel over rounds: part of the components.
_SPECTRUM = {
    "top_eighth": (0.125, "best eighth"),
    "top_quarter": (0.25, "best quarter"),
    "top_half": (0.5, "best half"),
    "top_three_quarters": (0.75, "best three quarters"),
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
    if any(floats(view.uploads, name).notna().any() for name in _SPECTRUM):
        panels["spectrum"] = _spectrum(view)
    if any(floats(view.history, name).notna().any() for name in _LINES):
        panels["covariance"] = _covariance(view)
    return panels


def _spectrum(view: RunView) -> go.Figure:
    """Return how steep importance is: dotted where all components would weigh alike."""
    panel = figure("Share of the squared change in the best components (mean of clients)", 320)
    for index, (name, (part, meaning)) in enumerate(_SPECTRUM.items()):
        values = floats(view.uploads, name)
        means = values.groupby(view.uploads["round"]).mean().dropna()
        colour = run_colour(index)
        panel.add_trace(
            go.Scatter(
                x=means.index.to_numpy(),
                y=means.to_numpy(),
                name=meaning,
                mode="lines+markers",
                line={"color": colour},
                hovertemplate=f"round %{{x}}: %{{y:.1%}} in the {meaning}<extra></extra>",
            )
        )
        panel.add_hline(part, line={"color": colour, "width": 1, "dash": "dot"})
    panel.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    panel.update_xaxes(title="round")
    panel.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return panel


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
