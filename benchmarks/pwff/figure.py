"""The benchmark's picture: what personal tuning gains and forgets, and whom alignment serves.

    .venv/bin/python -m benchmarks.pwff.figure

Reads results.json and alignment.json beside it, and writes figure.png.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from airtune.report.theme import INK, RUN_COLOURS, RUN_SYMBOLS
from benchmarks.picture import photograph
from benchmarks.pwff import alignment_cases as of

HERE = Path(__file__).parent
_SKEWS = {"0.1": 0, "0.5": 1, "IID": 2}  # -> the marker


def main() -> None:
    personal = json.loads((HERE / "results.json").read_text(encoding="utf-8"))["rows"]
    aligned = json.loads((HERE / "alignment.json").read_text(encoding="utf-8"))["rows"]
    picture = draw(personal, aligned)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        picture.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        photograph(page, HERE / "figure.png")


def draw(personal: dict[str, Any], aligned: dict[str, Any]) -> go.Figure:
    """Return both panels."""
    picture = make_subplots(
        rows=2, cols=1, vertical_spacing=0.12,
        subplot_titles=(
            "Banking77, frozen head: clients' own models (Dirichlet 0.1 round, 0.5 square, IID "
            "diamond)",
            "Alignment, caring: reward by own weights of clients a = 0 ... 1 (means of seeds)",
        ),
    )  # fmt: skip
    titles: dict[str, int] = {}
    for key, by_seed in personal.items():
        row, head, skew = key.split(" | ")
        if head != "frozen" or any(word in row for word in ("width", "bit")):
            continue
        index = titles.setdefault(row, len(titles))
        mean = {
            name: statistics.fmean(each[name] for each in by_seed.values())
            for name in ("personal_accuracy", "personal_global")
        }
        picture.add_trace(
            go.Scatter(
                x=[mean["personal_global"]], y=[mean["personal_accuracy"]], mode="markers",
                name=row, legendgroup=row, showlegend=skew == "0.5",
                marker={"color": RUN_COLOURS[index % 7], "size": 12,
                        "symbol": RUN_SYMBOLS[_SKEWS[skew]]},
            ), row=1, col=1,
        )  # fmt: skip
    shown = (*of.MAIN, *of.SINGLE)
    for place, row in enumerate(shown):
        kept = aligned.get(f"{row} | caring")
        if kept is None:
            continue
        means = [
            statistics.fmean(values)
            for values in zip(*(each["reward"] for each in kept.values()), strict=True)
        ]
        single = row in of.SINGLE
        picture.add_trace(
            go.Scatter(
                x=list(of.PREFERENCES), y=means, name=row, legend="legend2",
                mode="lines" if single else "lines+markers",
                line={"color": "#9aa5b1" if single else RUN_COLOURS[place % 7],
                      "width": 1 if single else 2.5, "dash": "dot" if single else "solid"},
            ), row=2, col=1,
        )  # fmt: skip
    front = next((next(iter(kept.values()))["front"] for key, kept in aligned.items()
                  if key.endswith("| caring")), None)  # fmt: skip
    if front:
        best = [max(a * h + (1 - a) * s for h, s in front) for a in of.PREFERENCES]
        picture.add_trace(
            go.Scatter(x=list(of.PREFERENCES), y=best, name="best attainable", legend="legend2",
                       mode="lines", line={"color": INK, "dash": "dash"}), row=2, col=1,
        )  # fmt: skip
    picture.update_xaxes(title="accuracy on texts of all classes", tickformat=".0%", row=1, col=1)
    picture.update_yaxes(title="on own texts", tickformat=".0%", row=1, col=1)
    picture.update_xaxes(title="a, weight of helpful against safe", row=2, col=1)
    picture.update_yaxes(title="own-weight reward", row=2, col=1)
    picture.update_layout(
        template="none", width=1180, height=1260, font={"family": "system-ui", "color": INK},
        legend={"y": 1.0}, legend2={"y": 0.42}, margin={"l": 70, "r": 20, "t": 50},
    )  # fmt: skip
    return picture


if __name__ == "__main__":
    main()
