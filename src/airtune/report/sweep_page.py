"""What a sweep found, drawn: costs against the first key, a line for each setting of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from airtune.federation.costs import Costs, Priced
from airtune.report.page import page, plot, swatch, write_page
from airtune.report.theme import figure, run_colour, run_symbol
from airtune.report.units import Unit, rung

_LOGARITHMIC = 8.0  # times the smallest value of an axis


class _Measure(NamedTuple):
    title: str
    unit: Unit
    of: Callable[[Costs], float]
    high: Callable[[Costs], float] | None = None


def write_sweep(name: str, points: Sequence[Priced], path: Path) -> None:
    """Write one self-contained page about a sweep."""
    keys = list(points[0].settings)
    lines = _lines(points)
    measures = (
        _Measure(
            "Airtime of a round", "s", lambda c: c.airtime_s.median, lambda c: c.airtime_s.high
        ),
        _Measure(
            "A round, with computing", "s", lambda c: c.round_s.median, lambda c: c.round_s.high
        ),
        _Measure("Upload of a client", "bit", lambda c: c.upload_bits.median),
        _Measure("Energy of a device and round", "J", lambda c: c.device_j.median),
    )
    panels = "".join(
        plot(_panel(measure, keys[0], lines), f"sweep-{index}")
        for index, measure in enumerate(measures)
    )
    key = "".join(
        f"<span>{swatch(index)}{escape(label)}</span>" for index, label in enumerate(lines) if label
    )
    body = [
        f"<h1>{escape(name)}: costs by {escape(', '.join(keys))}</h1>"
        "<p class=soft>Before any run; bars go up to the 95 % quantile.</p>",
        f"<div class=key>{key}</div>" if key else "",
        f"<div class='grid two'>{panels}</div>",
    ]
    write_page(page(f"{name}: sweep", body), path)


def _lines(points: Sequence[Priced]) -> dict[str, list[tuple[str, Costs]]]:
    """Return values of the first key with their costs, by what the other keys are."""
    lines: dict[str, list[tuple[str, Costs]]] = {}
    for point in points:
        (_, value), *others = point.settings.items()
        label = ", ".join(f"{key.split('.')[-1]} {other}" for key, other in others)
        if point.costs is not None:
            lines.setdefault(label, []).append((value, point.costs))
    return lines


def _panel(measure: _Measure, key: str, lines: dict[str, list[tuple[str, Costs]]]) -> go.Figure:
    found = [measure.of(costs) for line in lines.values() for _, costs in line]
    factor, symbol = rung(max(found), measure.unit)
    panel = figure(f"{measure.title} ({symbol})", 320)
    ticks = [value for line in lines.values() for value, _ in line]
    numbers = _numbers(ticks)
    for index, (label, line) in enumerate(lines.items()):
        ys = [measure.of(costs) / factor for _, costs in line]
        bars = None
        if measure.high is not None:
            above = [
                measure.high(costs) / factor - y for (_, costs), y in zip(line, ys, strict=True)
            ]
            bars = {"type": "data", "symmetric": False, "array": above, "thickness": 1, "width": 3}
        panel.add_trace(
            go.Scatter(
                x=[value if numbers is None else float(value) for value, _ in line],
                y=ys,
                error_y=bars,
                name=escape(label, quote=False),
                mode="lines+markers",
                line={"color": run_colour(index), "width": 2},
                marker={"size": 6, "symbol": run_symbol(index)},
                hovertemplate=f"%{{x}}: %{{y:.3g}} {symbol}<extra>{escape(label)}</extra>",
            )
        )
    panel.update_xaxes(title=escape(key))
    if numbers is None:
        panel.update_xaxes(type="category")
    else:
        logarithmic = min(numbers) > 0 and max(numbers) >= _LOGARITHMIC * min(numbers)
        panel.update_xaxes(
            type="log" if logarithmic else "linear",
            tickvals=numbers,
            ticktext=list(dict.fromkeys(ticks)),
        )
    positive = [value for value in found if value > 0]
    if positive and max(positive) >= _LOGARITHMIC * min(positive):
        panel.update_yaxes(type="log", dtick="D2")
    else:
        panel.update_yaxes(rangemode="tozero")
    return panel


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """Return the distinct values as finite numbers, None where one is something else."""
    try:
        numbers = [float(text) for text in dict.fromkeys(texts)]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
