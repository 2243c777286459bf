"""What was learned against what it cost: one panel per cost, one line per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from airtune.report.theme import GRID, figure, note, run_colour, run_symbol
from airtune.report.units import Unit, duration, known, percent, quantity, rung
from airtune.report.view import RunView, floats

# Runs whose totals differ by more than this share no linear axis: the cheap one would vanish.
_LINEAR_SPAN = 10.0
_MARKED_POINTS = 60
_REWARD = "personal_reward"  # by each client's own weights, where a method judges answers


class Cost(NamedTuple):
    """A running total of ``history`` and how a panel names it."""

    column: str
    name: str
    unit: Unit


COSTS = (
    Cost("total_uplink_bits", "uplink", "bit"),
    Cost("total_seconds", "simulated time", "s"),
    Cost("total_joules", "energy", "J"),
)


def cost_curves(views: Sequence[RunView], target: float = math.nan) -> list[go.Figure]:
    """Return accuracy, perplexity and clients' own rewards against bits, seconds and joules.

    Of each what some run has.

    Traces carry their run's index as legend group. Personal accuracy is dashed, ``target`` dotted.
    """
    panels = []
    if any(_measured(v, "accuracy") or _measured(v, "personal_accuracy") for v in views):
        panels += [_panel(views, "accuracy", cost, target) for cost in COSTS]
    for other in ("perplexity", _REWARD):
        if any(_measured(v, other) for v in views):
            panels += [_panel(views, other, cost, math.nan) for cost in COSTS]
    return panels


def _measured(view: RunView, measure: str) -> bool:
    return bool(floats(view.history, measure).notna().any())


def _panel(views: Sequence[RunView], measure: str, cost: Cost, target: float) -> go.Figure:
    name = "clients' reward" if measure == _REWARD else measure
    title = f"{name.capitalize()} against {cost.name}"
    totals = [float(floats(view.history, cost.column).iloc[-1]) for view in views]
    charged = [total for total in totals if known(total) and total > 0]
    if not any(map(known, totals)):
        return note(title, f"The {cost.name} is not known.")
    if not charged:
        return note(title, f"No {cost.name} was charged.")
    logarithmic = max(charged) > _LINEAR_SPAN * min(charged)
    factor, symbol = rung(min(charged) if logarithmic else max(charged), cost.unit)
    panel = figure(title, 320)
    for index, view in enumerate(views):
        rows = view.history
        if logarithmic:
            # The untrained model cost nothing, which a log axis would draw as a flat approach.
            rows = rows[floats(rows, cost.column) > 0]
        panel.add_trace(_line(view.name, rows, index, measure, cost, factor))
        if measure == "accuracy" and _measured(view, "personal_accuracy"):
            panel.add_trace(_line(view.name, rows, index, "personal_accuracy", cost, factor))
    if known(target):
        panel.add_hline(target, line={"color": "#7b8794", "width": 1, "dash": "dot"})
    if measure == "accuracy":
        panel.update_yaxes(tickformat=".0%")
    elif measure == "perplexity" and _span(views, measure) > _LINEAR_SPAN:
        panel.update_yaxes(type="log", dtick="D2")
    panel.update_xaxes(title=f"{cost.name} so far ({symbol}{', log scale' if logarithmic else ''})")
    panel.update_xaxes(type="log" if logarithmic else "linear")
    if logarithmic:
        panel.update_xaxes(dtick=1, minor={"dtick": "D1", "showgrid": True, "gridcolor": GRID})
    else:
        panel.update_xaxes(rangemode="tozero")
    return panel


def _line(
    name: str, history: pd.DataFrame, index: int, measure: str, cost: Cost, factor: float
) -> go.Scatter:
    """Return one run's line; unevaluated rounds are left out, so the line runs across them."""
    rows = history[floats(history, measure).notna()]
    dashed = measure == "personal_accuracy"
    return go.Scatter(
        x=(floats(rows, cost.column) / factor).to_numpy(),
        y=floats(rows, measure).to_numpy(),
        name=escape(name, quote=False),
        legendgroup=str(index),
        mode="lines+markers" if len(rows) <= _MARKED_POINTS else "lines",
        line={"color": run_colour(index), "width": 2, "dash": "dash" if dashed else "solid"},
        marker={
            "size": 5,
            "symbol": run_symbol(index) + ("-open" if dashed else ""),
        },
        text=_hover(rows, measure),
        hovertemplate="%{text}",
    )


def _hover(rows: pd.DataFrame, measure: str) -> list[str]:
    form = {"perplexity": "{:.2f}".format, _REWARD: "{:.3g}".format}.get(measure, percent)
    figures = zip(
        rows["round"],
        floats(rows, measure),
        *(floats(rows, cost.column) for cost in COSTS),
        strict=True,
    )
    return [
        f"round {number}: {measure.replace('_', ' ')} {form(value)}<br>"
        f"{quantity(bits, 'bit')} up, {duration(seconds)}, {quantity(joules, 'J')}"
        for number, value, bits, seconds, joules in figures
    ]


def _span(views: Sequence[RunView], measure: str) -> float:
    values = pd.concat([floats(view.history, measure) for view in views])
    return float(values.max() / values.min())
