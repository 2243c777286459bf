"""Several runs side by side, each column in one unit so that its numbers compare at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airtune.report.targets import default_target, to_target
from airtune.report.units import MISSING, Unit, common_rung, digits, known, percent
from airtune.report.view import RunView

_NOT_REACHED = "not reached"


class Column(NamedTuple):
    """One column: what it says, in which unit, and one cell per run."""

    header: str
    unit: str
    cells: list[str]


@dataclass(frozen=True)
class Comparison:
    """One row per run. ``target`` is the accuracy of the last columns; NaN if none was measured."""

    title: str
    target: float
    names: list[str]
    columns: list[Column]


def compare(views: Sequence[RunView], target: float | None = None) -> Comparison:
    """Set runs side by side; ``target`` is an accuracy, by default 95 % of the best of any run.

    A figure that no run has gets no column.
    """
    asked = target is not None
    goal = default_target(view.history for view in views) if target is None else target
    columns = [
        _plain(views, "Accuracy", "accuracy", 100.0, "%"),
        _plain(views, "Personal", "personal_accuracy", 100.0, "%"),
        _plain(views, "PPL", "perplexity", 1.0, ""),
        _scaled("Uplink", [view.summary.get("uplink_bits") for view in views], "bit"),
        _scaled("Downlink", [view.summary.get("downlink_bits") for view in views], "bit"),
        _scaled("Time", [view.summary.get("seconds") for view in views], "s"),
        _scaled("Energy", [view.summary.get("joules") for view in views], "J"),
    ]
    columns = [column for column in columns if set(column.cells) != {MISSING}]
    if known(default_target(view.history for view in views)):
        columns += _to_target(views, goal)
    return Comparison(_title(goal, asked), goal, [view.name for view in views], columns)


def _title(target: float, asked: bool) -> str:
    if math.isnan(target):
        return "What each run learned and what it cost"
    origin = "as asked" if asked else "95 % of the best that any run reached"
    return f"Target: {percent(target)} accuracy ({origin})"


def _plain(views: Sequence[RunView], header: str, key: str, times: float, unit: str) -> Column:
    values = [view.summary.get(key) for view in views]
    number = "{:.1f}".format if unit == "%" else digits
    cells = [MISSING if v is None or not known(v) else number(times * v) for v in values]
    return Column(header, unit, cells)


def _scaled(
    header: str, values: Sequence[float | None], unit: Unit, missing: str = MISSING
) -> Column:
    there = [value for value in values if value is not None and known(value)]
    factor, symbol = common_rung(there, unit)
    cells = [missing if v is None or not known(v) else digits(v / factor) for v in values]
    return Column(header, symbol, cells)


def _to_target(views: Sequence[RunView], target: float) -> list[Column]:
    reached = [to_target(view.history, target) for view in views]
    bits = [each.total_uplink_bits if each else None for each in reached]
    seconds = [each.total_seconds if each else None for each in reached]
    return [
        _scaled("Uplink to target", bits, "bit", _NOT_REACHED),
        _scaled("Time to target", seconds, "s", _NOT_REACHED),
    ]
