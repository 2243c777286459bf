"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from airtune.report.comparison import Comparison, compare
from airtune.report.facts import run_facts, subtitle
from airtune.report.view import RunView

# Characters in a column of figures; nine such columns and a short name fit a terminal of 80.
_WIDEST = 9
_ENDLESS = 10_000


def run_table(view: RunView, wall: bool = True) -> Table:
    """Return what the end of a run prints: the answer to "what did it cost"."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=False, title_justify="left")
    table.title = Text.assemble((view.name, "bold"), "\n", (subtitle(view), "dim"))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for label, value, note in run_facts(view, wall=wall):
        table.add_row(label, value, note)
    return table


def compare_table(
    views: Sequence[RunView], target: float | None = None, width: int | None = None
) -> Table:
    """Return one row per run; ``target`` is an accuracy, by default 95 % of the best of any run.

    Where its columns do not fit into ``width`` characters there is one column per run instead.
    """
    comparison = compare(views, target)
    wide = _by_run(comparison)
    endless = Console(width=_ENDLESS)  # or the measure would be cut to the console's own width
    if width is None or Measurement.get(endless, endless.options, wide).minimum <= width:
        return wide
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
    table.title = Text(comparison.title)
    table.add_column("")
    for name, _ in comparison.rows():
        table.add_column(Text(name), justify="right", overflow="fold")
    for header, unit, cells in comparison.columns:
        table.add_row(Text(f"{header}, {unit}" if unit else header), *cells)
    return table


def _by_run(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title_justify="left", padding=0)
    table.title = Text(comparison.title)
    table.add_column("Run", overflow="fold", min_width=8)
    for header, unit, cells in comparison.columns:
        # Wide enough for any figure; longer heads break between words, so names keep their room.
        longest = max(len(word) for text in (header, *cells) for word in text.split())
        table.add_column(
            Text(f"{header}\n{unit}"), justify="right", min_width=longest, max_width=_WIDEST
        )
    for name, row in comparison.rows():
        table.add_row(Text(name), *row)
    return table
