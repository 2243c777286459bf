"""What all figures of a report share."""

from __future__ import annotations

import plotly.graph_objects as go

# Okabe and Ito's palette without its yellow, which is too pale for a line on white.
RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1c1c1c")
RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up")

INK = "#1f2933"
GRID = "#e4e7eb"
NOTHING = "#f3f4f6"


def run_colour(index: int) -> str:
    """Return the colour of the ``index``-th run, the same in every panel."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def run_symbol(index: int) -> str:
    """Return the marker of the ``index``-th run; it tells runs apart once colours repeat."""
    return RUN_SYMBOLS[(index // len(RUN_COLOURS)) % len(RUN_SYMBOLS)]


def figure(title: str, height: int) -> go.Figure:
    """Return an empty figure in the house's look; its width follows the page."""
    empty = go.Figure()
    axis = {"gridcolor": GRID, "linecolor": "#9aa5b1", "zeroline": False, "automargin": True}
    empty.update_layout(
        template="none",
        title={"text": title, "font": {"size": 14}, "x": 0, "xref": "container", "xanchor": "left"},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        height=height,
        margin={"l": 48, "r": 12, "t": 40, "b": 44},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        showlegend=False,
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": INK}, "align": "left"},
        xaxis=axis,
        yaxis=axis,
    )
    return empty


def note(title: str, text: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    empty = figure(title, 130)
    empty.update_xaxes(visible=False)
    empty.update_yaxes(visible=False)
    empty.add_annotation(
        text=text, x=0, y=0.5, xref="paper", yref="paper", xanchor="left", showarrow=False,
        align="left", font={"color": "#616e7c"},
    )  # fmt: skip
    empty.update_layout(margin={"l": 4, "b": 8})
    return empty
