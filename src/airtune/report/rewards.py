"""Two rewards of every client's model, before and after, and the front that bounds them."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from airtune.report.theme import INK, figure, run_colour
from airtune.report.view import RunView

_UNTRAINED = "#9aa5b1"
_SIDES = ("top right", "bottom right", "bottom left", "top left")  # of the labels, in turn


def rewards_panel(view: RunView) -> go.Figure | None:
    """Return helpfulness against safety of clients' models; None where nothing was judged.

    Where the summary knows the Pareto front of the objectives, it is drawn.
    """
    after: dict[str, Any] = view.summary.get("personal_scores") or {}
    before: dict[str, Any] = view.summary.get("personal_scores_untrained") or {}
    names = [name for name, own in after.items() if {"helpful", "safe"} <= own.keys()]
    if not names:
        return None
    facts = view.summary.get("facts") or {}
    panel = figure("Helpful and safe: clients' models, untrained and at the end", 360)
    front = facts.get("front") or []
    if front:
        panel.add_trace(
            go.Scatter(
                x=[point[0] for point in front],
                y=[point[1] for point in front],
                name="best attainable",
                mode="lines+markers",
                line={"color": INK, "dash": "dot"},
                marker={"size": 4},
                hovertemplate="best: helpful %{x:.3f}, safe %{y:.3f}<extra></extra>",
            )
        )
    for title, scores, colour in (
        ("untrained", before, _UNTRAINED),
        ("at the end", after, run_colour(0)),
    ):
        there = [name for name in names if {"helpful", "safe"} <= scores.get(name, {}).keys()]
        panel.add_trace(
            go.Scatter(
                x=[scores[name]["helpful"] for name in there],
                y=[scores[name]["safe"] for name in there],
                text=[_label(name, after[name].get("preference")) for name in there],
                customdata=[[_known(scores[name], "reward"), _known(scores[name], "kl")]
                            for name in there],
                name=title,
                mode="markers+text" if title == "at the end" and len(there) <= 12 else "markers",
                # Neighbours on the front would lie over one another all on one side.
                textposition=[_SIDES[place % len(_SIDES)] for place in range(len(there))],
                marker={"color": colour, "size": 8},
                hovertemplate="%{text}: helpful %{x:.3f}, safe %{y:.3f}, own weights "
                "%{customdata[0]}, KL %{customdata[1]}" + f" ({title})<extra></extra>",
            )
        )  # fmt: skip
    panel.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.2})
    panel.update_xaxes(title="helpful")
    panel.update_yaxes(title="safe")
    return panel


def _label(name: str, preference: float | None) -> str:
    return name if preference is None else f"{name} (a = {preference:g})"


def _known(scores: dict[str, Any], name: str) -> str:
    value = scores.get(name)
    return "unknown" if value is None else f"{value:.3f}"
