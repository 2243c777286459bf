"""Several runs side by side, each column in one unit so that its numbers compare at a glance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airtune.report.facts import measure
from airtune.report.targets import default_target, to_target
from airtune.report.units import MISSING, Rung, Unit, common_rung, digits, known, percent
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

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each run's name and cells."""
        for index, name in enumerate(self.names):
            yield name, [column.cells[index] for column in self.columns]


def compare(views: Sequence[RunView], target: float | None = None) -> Comparison:
    """Set runs side by side; ``target`` is an accuracy, by default 95 % of the best of any run.

    A figure that no run has gets no column.
    """
    asked = target is not None
    goal = default_target(view.history for view in views) if target is None else target
    reached = [to_target(view.history, goal) for view in views]
    bits_to_target = [each.total_uplink_bits if each else None for each in reached]
    seconds_to_target = [each.total_seconds if each else None for each in reached]
    bits = [view.summary.get("uplink_bits") for view in views]
    seconds = [view.summary.get("seconds") for view in views]
    # What a target took stands in the unit of the total that it is a part of.
    bit_rung = common_rung(_there([*bits, *bits_to_target]), "bit")
    second_rung = common_rung(_there([*seconds, *seconds_to_target]), "s")
    columns = [
        _plain(views, "Accuracy", "accuracy", 100.0, "%"),
        _plain(views, "Personal", "personal_accuracy", 100.0, "%"),
        _plain(views, "Personal, all texts", "personal_global_accuracy", 100.0, "%"),
        _plain(views, "PPL", "perplexity", 1.0, ""),
        *(_score(views, name) for name in _scores(views)),
        _scaled("Uplink", bits, bit_rung),
        _own_scale("Downlink", [view.summary.get("downlink_bits") for view in views], "bit"),
        _scaled("Time", seconds, second_rung),
        _own_scale("Energy", [view.summary.get("joules") for view in views], "J"),
    ]
    columns = [column for column in columns if set(column.cells) != {MISSING}]
    if known(default_target(view.history for view in views)):
        columns += [
            _scaled("Uplink to target", bits_to_target, bit_rung, _NOT_REACHED),
            _scaled("Time to target", seconds_to_target, second_rung, _NOT_REACHED),
        ]
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


def _scores(views: Sequence[RunView]) -> list[str]:
    """Return what methods themselves measured of clients' own models, in any run."""
    names = [name for view in views for name in view.summary.get("scores") or {}]
    return [name for name in dict.fromkeys(names) if name.startswith("personal_")]


def _score(views: Sequence[RunView], name: str) -> Column:
    values = [(view.summary.get("scores") or {}).get(name) for view in views]
    cells = [MISSING if v is None or not known(v) else digits(v) for v in values]
    return Column(measure(name), "", cells)


def _own_scale(header: str, values: Sequence[float | None], unit: Unit) -> Column:
    return _scaled(header, values, common_rung(_there(values), unit))


def _scaled(
    header: str, values: Sequence[float | None], rung: Rung, missing: str = MISSING
) -> Column:
    cells = [missing if v is None or not known(v) else digits(v / rung.factor) for v in values]
    return Column(header, rung.symbol, cells)


def _there(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and known(value)]
