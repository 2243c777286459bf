"""The command that plans: what will it cost, what to change first, which rank."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from airtune.errors import UserError
from airtune.terminal import File, Set, console


def plan(
    context: typer.Context,
    file: File,
    sweep: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--sweep",
            metavar="KEY=V,V ...",
            help="costs of other settings, all combinations; further KEY=V,V may follow",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[Path, typer.Option(help="page for the plot of --sweep")] = Path("sweep.html"),
    pilot: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            help="train so many rounds of each, where sizes depend on what is learned",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[bool, typer.Option("--rank", help="choose the LoRA rank by pilots")] = False,
    ranks: Annotated[str, typer.Option(help="--rank: ranks to choose from")] = "1,2,4,8,16,32",
    proxy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="--rank: file of texts for pilots, read like data.train; default: some of the "
            "experiment's own training texts",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="--rank: of each pilot")] = 3,
    by: Annotated[
        str,
        typer.Option(
            help="--rank: pilot, held-out loss under the budget; surrogate, what each rank omits"
        ),
    ] = "pilot",
    set_: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file for what is found", show_default=False),
    ] = None,
) -> None:
    """Say what an experiment will cost before anything trains, and what to change first."""
    further = context.args
    if further and sweep is None:
        raise UserError(f"'{further[0]}' is one argument too many; --sweep takes KEY=VALUE,VALUE.")
    if rank and sweep is not None:
        raise UserError("--sweep: costs need no --rank; give adapter.rank=... to --sweep instead.")
    if rank and pilot is not None:
        raise UserError("--pilot: with --rank all are pilots; give their --rounds.")
    _check(out, "--out")
    if rank:
        _plan_rank(file, set_ or [], ranks, proxy, rounds, by, out)
    elif sweep is not None:
        _check(plot, "--plot")
        _plan_sweep(file, set_ or [], [*sweep, *further], pilot, plot, out)
    else:
        _plan_costs(file, set_ or [], pilot, out)


def _check(path: Path | None, option: str) -> None:
    """Raise UserError for a file that could not be written at the end of long work."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"{option}: '{path}' cannot be written; name a file in an existing folder.")


def _say(step: str) -> None:
    console.print(f"rehearsing {step}", style="dim", highlight=False, soft_wrap=True)


def _plan_costs(file: Path, set_: list[str], pilot: int | None, out: Path | None) -> None:
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_)
    from airtune.planning.cost_plan import plan_costs
    from airtune.report.cost_table import changes_table, cost_sentences, cost_table

    found = plan_costs(experiment, pilot, _say)
    deadline = experiment.cell.deadline_s
    console.print(cost_table(experiment.name, found.costs, experiment.train.rounds, deadline))
    for sentence in cost_sentences(found.costs, deadline, found.sizes_vary):
        console.print(sentence, soft_wrap=True, highlight=False)
    console.print(changes_table(found.first, found.changed))
    if out is not None:
        _write(out, dataclasses.asdict(found))


def _plan_sweep(
    file: Path, set_: list[str], texts: list[str], pilot: int | None, plot: Path, out: Path | None
) -> None:
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_)
    from airtune.planning.cost_plan import parse_grid, sweep
    from airtune.report.cost_table import sweep_sentences, sweep_table
    from airtune.report.sweep_page import write_sweep

    points = sweep(
        parse_grid(texts), lambda more: read_experiment(file, [*set_, *more]), pilot, _say
    )
    console.print(sweep_table(points))
    for sentence in sweep_sentences(points):
        console.print(sentence, soft_wrap=True, highlight=False)
    write_sweep(experiment.name, points, plot)
    console.print(f"  {plot}  [dim]plot, open it in a browser[/dim]", soft_wrap=True)
    if out is not None:
        _write(out, [dataclasses.asdict(point) for point in points])


def _plan_rank(
    file: Path,
    set_: list[str],
    ranks: str,
    proxy: str | None,
    rounds: int,
    by: str,
    out: Path | None,
) -> None:
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_)
    from airtune.planning.rank import parse_by, parse_ranks, plan_rank
    from airtune.report.rank_table import rank_sentences, rank_table

    def on_pilot(number: int) -> None:
        console.print(f"pilot of rank {number}", style="dim", highlight=False)

    found = plan_rank(experiment, parse_ranks(ranks), proxy, rounds, parse_by(by), on_pilot)
    console.print(rank_table(found))
    for sentence in rank_sentences(found):
        console.print(sentence, soft_wrap=True, highlight=False)
    if out is not None:
        _write(out, found)


def _write(out: Path, found: Any) -> None:
    import json

    from airtune.federation.ledger import plain

    try:
        out.write_text(json.dumps(plain(found), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: '{out}' cannot be written ({error.strerror}).") from error
