"""What each client's own model gained on its own data."""

from __future__ import annotations

import plotly.graph_objects as go

from airtune.report.theme import figure, run_colour
from airtune.report.view import RunView

_UNTRAINED = "#9aa5b1"


def personal_panel(view: RunView) -> go.Figure | None:
    """Return accuracy before and after by client, the best at the right; None if none was tested.

    Clients are those of ``clients.tested``.
    """
    after: dict[str, float] = view.summary.get("personal_accuracies") or {}
    before: dict[str, float] = view.summary.get("personal_accuracies_untrained") or {}
    names = sorted(after.keys() & before.keys(), key=lambda name: (after[name], name))
    if not names:
        return None
    panel = figure("Accuracy of clients on their own data, untrained and at the end", 320)
    gaps = [y for name in names for y in (before[name], after[name], None)]
    panel.add_trace(
        go.Scatter(
            x=[x for name in names for x in (name, name, None)],
            y=gaps,
            mode="lines",
            line={"color": _UNTRAINED, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for title, values, colour in (
        ("untrained", before, _UNTRAINED),
        ("at the end", after, run_colour(0)),
    ):
        panel.add_trace(
            go.Scatter(
                x=names,
                y=[values[name] for name in names],
                name=title,
                mode="markers",
                marker={"color": colour, "size": 7},
                hovertemplate=f"client %{{x}}: %{{y:.1%}} {title}<extra></extra>",
            )
        )
    panel.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    panel.update_xaxes(type="category", title="client, by accuracy at the end")
    panel.update_yaxes(tickformat=".0%")
    return panel
