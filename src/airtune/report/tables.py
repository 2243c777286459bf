"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from airtune.report.comparison import compare
from airtune.report.facts import run_facts, subtitle
from airtune.report.view import RunView

# Characters in a column of figures; nine such columns and a short name fit a terminal of 80.
_WIDEST = 9


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


def compare_table(views: Sequence[RunView], target: float | None = None) -> Table:
    """Return one row per run; ``target`` is an accuracy, by default 95 % of the best of any run."""
    comparison = compare(views, target)
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
