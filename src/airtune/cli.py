"""The command line: thin, and quick to say what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

import airtune
from airtune import machines
from airtune.errors import UserError
from airtune.showing import console, shown

app = typer.Typer(
    name="airtune",
    help="Fine-tune language models federatedly over wireless networks, and see what it costs.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
File = Annotated[Path, typer.Argument(help="experiment in YAML", show_default=False)]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads Optional on every version we support
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="override one key; may be repeated"),
]
Runs = Annotated[list[Path], typer.Argument(help="run directories", show_default=False)]


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        typer.echo(f"airtune {airtune.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    file: File,
    set_: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="run directory; default runs/NAME", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the result only")] = False,
    federation: Annotated[
        str,
        typer.Option(
            help="in-process; or for a trial a process for each client: local, or flower-local "
            "with Flower between them"
        ),
    ] = "in-process",
) -> None:
    """Run an experiment and show what it cost."""
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_ or [])
    from airtune import api

    if federation == "in-process":
        shown(console, experiment, quiet, lambda on: api.run(experiment, out, resume, on))
        return
    if federation not in ("local", "flower-local"):
        raise UserError(f"--federation: '{federation}' is none of in-process, local, flower-local.")
    from airtune.deploy.trial import trial

    with trial(experiment, federation) as (carrier, table):  # type: ignore[arg-type]
        shown(
            console,
            experiment,
            quiet,
            lambda on: api.serve(experiment, carrier, out, resume, on, table=table),
        )


@app.command()
def plan(
    file: File,
    rank: Annotated[bool, typer.Option("--rank", help="choose the LoRA rank by pilots")] = False,
    ranks: Annotated[str, typer.Option(help="ranks to choose from")] = "1,2,4,8,16,32",
    proxy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="file of texts for pilots, read like data.train; default: some of the "
            "experiment's own training texts",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="of each pilot")] = 3,
    by: Annotated[
        str,
        typer.Option(help="pilot: held-out loss under the budget; surrogate: what each rank omits"),
    ] = "pilot",
    set_: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file for the curve", show_default=False),
    ] = None,
) -> None:
    """Choose before a run what pilots on proxy data can choose: the LoRA rank."""
    if not rank:
        raise UserError("plan: only the choice of the LoRA rank exists so far; add --rank.")
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_ or [])
    from airtune.planning.rank import parse_by, parse_ranks, plan_rank, write_plan
    from airtune.report.rank_table import rank_sentences, rank_table

    wanted, way = parse_ranks(ranks), parse_by(by)
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UserError(f"--out: '{out}' cannot be written; name a file in an existing folder.")

    def on_pilot(number: int) -> None:
        console.print(f"pilot of rank {number}", style="dim", highlight=False)

    found = plan_rank(experiment, wanted, proxy, rounds, way, on_pilot)
    console.print(rank_table(found))
    for sentence in rank_sentences(found):
        console.print(sentence, soft_wrap=True, highlight=False)
    if out is not None:
        write_plan(found, out)


@app.command()
def show(file: File, set_: Set = None) -> None:
    """Print the resolved, validated experiment."""
    from airtune.experiment import read_experiment

    experiment = read_experiment(file, set_ or [])
    typer.echo(experiment.to_yaml(), nl=False)
    if not experiment.adapter.has_slots:
        kind = experiment.adapter.kind
        typer.echo(f"# machine.cohort is 1: adapters of kind {kind} train one client at a time")


@app.command()
def methods() -> None:
    """List the methods that can be named in an experiment."""
    from airtune.methods import registry

    table = Table("method", "what it is", box=None, header_style="bold")
    for name in registry.names():
        table.add_row(name, registry.describe(name))
    console.print(table)


@app.command()
def compare(
    runs: Runs,
    target: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="accuracy for bits-to-target; default 95 % of the best reached"),
    ] = None,
) -> None:
    """Print what runs reached and what it cost, side by side."""
    from airtune.report.tables import compare_table
    from airtune.results import Run

    if target is not None and not 0 < target <= 1:
        raise UserError(f"--target: {target:g} is no accuracy; give a number above 0, at most 1.")
    console.print(compare_table([Run(path).view() for path in runs], target, console.width))


@app.command()
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write")] = Path(
        "report.html"
    ),
) -> None:
    """Write one self-contained HTML report about one run or several."""
    from airtune.api import write_report
    from airtune.results import Run

    if output.is_dir():
        raise UserError(f"--output: '{output}' is a directory; name a file.")
    write_report([Run(path) for path in runs], output)
    console.print(str(output), soft_wrap=True, highlight=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run directory", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="new directory", show_default=False)],
    client: Annotated[
        str | None, typer.Option(help="that client's own adapter", show_default=False)
    ] = None,
) -> None:
    """Copy a run's adapter to a folder that loads without airtune."""
    from airtune import api
    from airtune.results import Run

    target = api.export(Run(run), to, client)
    console.print(str(target), soft_wrap=True, highlight=False)
    if client is not None and api.keeps_nothing(Run(run), target):
        console.print(
            f"client {client} keeps nothing of its own: this is the server's model",
            soft_wrap=True,
            highlight=False,
        )


machines.add_to(app)


def main() -> None:
    """Entry point: errors that a user can mend are one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"airtune: {error}", file=sys.stderr)
        sys.exit(2)
