"""The command line: thin, and quick to say what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

import airtune
from airtune import machines
from airtune.cli_plan import plan
from airtune.errors import UserError
from airtune.terminal import File, Set, console, shown

app = typer.Typer(
    name="airtune",
    help="Fine-tune language models federatedly over wireless networks, and see what it costs.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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


app.command(context_settings={"allow_extra_args": True})(plan)


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
