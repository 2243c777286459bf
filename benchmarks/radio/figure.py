"""The benchmark's picture: how SNR and airtime are distributed in each preset."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from airtune.report.theme import GRID, INK, RUN_COLOURS, RUN_SYMBOLS
from benchmarks.picture import photograph

WIDTH, HEIGHT = 1120, 560
SYMBOLS = (*RUN_SYMBOLS, "triangle-down")  # that tell presets apart where colours are not printed
MARKED = (0.1, 0.3, 0.5, 0.7, 0.9)  # levels that have them
DASHES = {"min-max-delay": "solid", "equal": "dot"}
SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
Row = dict[str, Any]


def draw(rows: Sequence[Row], levels: Sequence[float]) -> go.Figure:
    """Return both panels: SNR, and the end of a round's last upload by either division."""
    picture = make_subplots(cols=2, horizontal_spacing=0.09)
    for index, row in enumerate(rows):
        colour, symbol = RUN_COLOURS[index % len(RUN_COLOURS)], SYMBOLS[index % len(SYMBOLS)]
        titled = f"{row['preset']} ({100 * row['outage']:.1f} %)"
        _curve(picture, 1, row["snr_db"], levels, colour, symbol)
        for name, dash in DASHES.items():
            marked = symbol if dash == "solid" else None
            _curve(picture, 2, row["round_s"][name], levels, colour, marked, dash)
        _key(picture, titled, colour, symbol=symbol)
    for name, dash in DASHES.items():
        _key(picture, f"{name} division", INK, dash=dash, legend="legend2")
    axis = {"gridcolor": GRID, "linecolor": INK, "ticks": "outside", "zeroline": False}
    picture.update_xaxes(**axis, title_standoff=8)
    picture.update_yaxes(**axis, range=[0, 1.005], tickformat=".1f", title_standoff=8)
    picture.update_xaxes(title="SNR over a tenth of the band, dB", row=1, col=1)
    picture.update_yaxes(title="share of clients and rounds", row=1, col=1)
    picture.update_xaxes(type="log", title="airtime until the last of ten has sent 1 Mbit, s",
                         tickvals=SECONDS, ticktext=[f"{each:g}" for each in SECONDS],
                         row=1, col=2)  # fmt: skip
    picture.update_yaxes(title="share of rounds", row=1, col=2)
    key = {"orientation": "h", "yanchor": "bottom"}
    picture.update_layout(
        template="none", width=WIDTH, height=HEIGHT,
        font={"family": "system-ui, sans-serif", "size": 14, "color": INK},
        margin={"l": 62, "r": 14, "t": 80, "b": 58},
        legend={**key, "x": -0.04, "y": 1.075, "entrywidth": 148, "font": {"size": 13},
                "title": {"text": "preset (outage) ", "font": {"size": 13}}},
        legend2={**key, "x": 0.535, "y": 1.01, "font": {"size": 13}},
    )  # fmt: skip
    return picture


def _curve(
    picture: go.Figure, column: int, values: Sequence[float], levels: Sequence[float], colour: str,
    symbol: str | None, dash: str = "solid",
) -> None:  # fmt: skip
    line = {"color": colour, "width": 2, "dash": dash}
    curve = go.Scatter(x=values, y=levels, mode="lines", line=line, showlegend=False)
    picture.add_trace(curve, row=1, col=column)
    if symbol is not None:
        at = [list(levels).index(level) for level in MARKED]
        points = go.Scatter(
            x=[values[place] for place in at], y=MARKED, mode="markers", showlegend=False,
            marker={"color": colour, "symbol": symbol, "size": 9},
        )  # fmt: skip
        picture.add_trace(points, row=1, col=column)


def _key(
    picture: go.Figure, name: str, colour: str, symbol: str | None = None, dash: str = "solid",
    legend: str = "legend",
) -> None:  # fmt: skip
    mode = "lines" if symbol is None else "lines+markers"
    entry = go.Scatter(
        x=[None], y=[None], name=name, mode=mode, legend=legend,
        line={"color": colour, "width": 2, "dash": dash}, marker={"symbol": symbol, "size": 9},
    )  # fmt: skip
    picture.add_trace(entry, row=1, col=1)


def write(rows: Sequence[Row], levels: Sequence[float], path: Path) -> None:
    """Write the picture as PNG, two pixels for each of its own."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        page.write_text(
            draw(rows, levels).to_html(include_plotlyjs=True, config={"displayModeBar": False}),
            encoding="utf-8",
        )
        photograph(page, path, (WIDTH + 16, HEIGHT + 16), scale=2.0)
