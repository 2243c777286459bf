"""The test bed's picture: what links had, what rounds were planned with, what was sent."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from plotly.subplots import make_subplots

from airtune.report.theme import GRID, INK, RUN_COLOURS
from benchmarks.picture import photograph

WIDTH, HEIGHT = 1120, 460


def draw(results: dict[str, Any], image: Path) -> None:
    """Draw the run whose links change: rates on the left, uploads on the right."""
    rows, changes = results["cases"]["changing"]["exchanges"], results["changes"]["changing"]
    last = max(row["round"] for row in rows)
    picture = make_subplots(cols=2, horizontal_spacing=0.09)
    for client, mbit in enumerate(results["rates_mbit"]):
        colour, own = RUN_COLOURS[client], [row for row in rows if row["client"] == client]
        rounds, named = [row["round"] for row in own], f"device {client}, {mbit:g} Mbit/s at first"
        truth = [_shaped(mbit, changes, client, round) for round in range(1, last + 1)]
        picture.add_scatter(x=list(range(1, last + 1)), y=truth, mode="lines", showlegend=False,
                            line={"color": colour, "dash": "dot", "shape": "hv"},
                            row=1, col=1)  # fmt: skip
        picture.add_scatter(x=rounds, y=[row["rate_mbit"] for row in own], name=named,
                            mode="lines+markers", line={"color": colour}, row=1, col=1)  # fmt: skip
        picture.add_scatter(x=rounds, y=[row["bytes"] / 1e6 for row in own], showlegend=False,
                            mode="lines+markers", line={"color": colour}, row=1, col=2)  # fmt: skip
    axis = {"gridcolor": GRID, "linecolor": INK, "ticks": "outside", "zeroline": False}
    picture.update_xaxes(**axis, title="round")
    picture.update_yaxes(**axis, rangemode="tozero")
    picture.update_yaxes(title="Mbit/s: planned with, and shaped to (dots)", type="log",
                         tickvals=[1, 2, 5, 10, 20], row=1, col=1)  # fmt: skip
    picture.update_yaxes(title="sent, MB", row=1, col=2)
    picture.update_layout(
        template="none", width=WIDTH, height=HEIGHT,
        font={"family": "system-ui, sans-serif", "size": 14, "color": INK},
        margin={"l": 62, "r": 14, "t": 50, "b": 58},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "figure.html"
        picture.write_html(html, include_plotlyjs=True, config={"displayModeBar": False})
        photograph(html, image, (WIDTH + 16, HEIGHT + 16))


def _shaped(mbit: float, changes: dict[str, Any], client: int, round: int) -> float:
    """Return what a link was shaped to in a round."""
    for after, changed in sorted(changes.items(), key=lambda each: int(each[0])):
        if int(after) < round and str(client) in changed:
            mbit = changed[str(client)]
    return mbit
