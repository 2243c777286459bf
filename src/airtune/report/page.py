"""A page of HTML that needs nothing else, today or in ten years."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from airtune.report.style import CSS, SCRIPT
from airtune.report.theme import run_colour

# Tells the browser to load nothing from anywhere, so that offline is not a matter of trust.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_PLOT_OPTIONS = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg"},
}


def write_page(text: str, path: Path) -> None:
    """Write a page; one of the same name is replaced at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole page of these parts."""
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - airtune</title><style>{CSS}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n<footer>airtune. Bits are those that crossed the air, 1 Mbit = 10<sup>6</sup> bit; "
        "seconds and joules are simulated, training on the device included; where links are "
        "measured, seconds are real ones.</footer>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def swatch(index: int) -> str:
    """Return the mark of the ``index``-th run in a key."""
    return f"<span class=swatch style='border-color:{run_colour(index)}'></span>"


def plot(panel: go.Figure, name: str, wide: bool = False) -> str:
    """Return a figure as a part of a page; ``name`` is unique there."""
    # Plotly would else make up a new id each time, and no two reports would be equal.
    drawn = to_html(
        panel,
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        div_id=name,
        config=_PLOT_OPTIONS,
        default_height=f"{panel.layout.height}px",
    )
    return f"<div class='panel{' wide' if wide else ''}'>{drawn}</div>"
