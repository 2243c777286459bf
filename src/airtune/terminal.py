"""What the commands have in common: words, the console, and a run as it is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

if TYPE_CHECKING:
    from airtune.experiment import Experiment
    from airtune.progress import RunProgress
    from airtune.results import Run

console = Console()

File = Annotated[Path, typer.Argument(help="experiment in YAML", show_default=False)]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads Optional on every version we support
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="override one key; may be repeated"),
]


def shown(
    on: Console, experiment: Experiment, quiet: bool, run: Callable[[RunProgress], Run]
) -> None:
    """Run, with a line for each round, and say what it cost and where the files are."""
    from airtune.progress import RunProgress
    from airtune.report.tables import run_table

    try:
        measured = experiment.cell.measured
        with RunProgress(on, experiment.train.rounds, quiet, measured) as progress:
            finished = run(progress)
    except KeyboardInterrupt:
        typer.echo("airtune: stopped; the same command with --resume continues.", err=True)
        raise typer.Exit(130) from None
    on.print(run_table(finished.view()))
    loader = "peft" if experiment.adapter.is_peft else "its load.py"
    for name, what in (
        ("report.html", "charts, open it in a browser"),
        ("ledger.jsonl", "every message and round"),
        ("summary.json", "these figures"),
        ("adapter", f"the learned adapter, for {loader}"),
    ):
        on.print(f"  {finished.path / name}  [dim]{what}[/dim]", soft_wrap=True, highlight=False)
