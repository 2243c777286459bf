"""Commands for runs between machines: keys, serve, join."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from airtune.errors import UserError
from airtune.terminal import File, Set, console, shown

if TYPE_CHECKING:  # what it needs takes seconds to import
    from airtune.experiment import Experiment

keys = typer.Typer(help="Make and revoke the keys of a server and its devices.")
Folder = Annotated[Path, typer.Argument(help="folder of keys", show_default=False)]
Name = Annotated[str, typer.Argument(help="of the device", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")
    app.command()(serve)
    app.command()(join)


@keys.command()
def new(
    folder: Folder,
    host: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads Optional on every version we support
        typer.Option(help="name or address by which devices reach the server; may be repeated"),
    ] = None,
) -> None:
    """Make an authority and a server's certificate."""
    from airtune.deploy import keys as made

    made.new(folder, host or [])
    console.print(
        f"{folder}: devices get ca.crt, and a key each by airtune keys add {folder} NAME",
        soft_wrap=True,
        highlight=False,
    )


@keys.command()
def add(folder: Folder, name: Name) -> None:
    """Make a device's key."""
    from airtune.deploy import keys as made

    console.print(str(made.add(folder, name)), soft_wrap=True, highlight=False)


@keys.command()
def revoke(folder: Folder, name: Name) -> None:
    """Let a device take part no longer, in a run that goes on either."""
    from airtune.deploy import keys as made

    made.revoke(folder, name)


def serve(
    file: File,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8000,
    tls_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="folder of keys, by airtune keys new", show_default=False),
    ] = None,
    clients: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="devices to wait for; default: clients.count"),
    ] = None,
    set_: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="run directory; default runs/NAME", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the result only")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait for devices to come")] = 600.0,
    limit: Annotated[float, typer.Option(help="seconds to wait for a round's answers")] = 600.0,
    links: Annotated[
        str,
        typer.Option(
            help="measured: as devices report them, cell.deadline_s by the clock on the wall; "
            "simulated: as the experiment's cell has them"
        ),
    ] = "measured",
    most: Annotated[
        float, typer.Option(help="megabytes (10^6 bytes) that one answer of a device may have")
    ] = 2000.0,
) -> None:
    """Run an experiment whose clients are devices that join over the network."""
    _end_tidily()
    from airtune.deploy.flower.processes import check_port
    from airtune.experiment import read_experiment

    if tls_dir is None and host not in ("127.0.0.1", "localhost"):
        raise UserError(
            "--tls-dir: beyond this machine everything is encrypted; make keys by airtune keys new."
        )
    most_bytes = _bytes(most)
    check_port(host, port)
    overrides = [*(set_ or []), *([] if clients is None else [f"clients.count={clients}"])]
    if links not in ("measured", "simulated"):
        raise UserError(f"--links: '{links}' is none of measured, simulated.")
    experiment = read_experiment(file, overrides)
    for key in ("test", "public"):  # said before devices come
        path = getattr(experiment.data, key)
        if path is not None and not Path(path).is_file():
            raise UserError(f"data.{key}: there is no file '{path}'.")
    if not experiment.cell.ideal:
        experiment = _on(experiment, links)
    from airtune import api
    from airtune.deploy.device import to_stderr
    from airtune.deploy.flower.engine import serving
    from airtune.federation.devices import Patience

    patience = Patience(devices=wait, answer=limit)
    with serving(host, port, tls_dir, most_bytes, to_stderr) as carrier:
        to_stderr(f"waiting for {experiment.clients.count} devices on {host}:{port}")
        shown(
            console,
            experiment,
            quiet,
            lambda on: api.serve(
                experiment, carrier, out, resume, on, to_stderr, patience, most_bytes=most_bytes
            ),
        )


def join(
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="where it serves")],
    train: Annotated[str, typer.Option(help="file of rows to learn from; stays here")],
    test: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="file of rows to test on; default: some of the others"),
    ] = None,
    ca: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="ca.crt of the server's folder of keys", show_default=False),
    ] = None,
    key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="this device's key", show_default=False),
    ] = None,
    personal: Annotated[Path, typer.Option(help="folder of what the device keeps")] = Path(
        "personal"
    ),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "auto",
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="where the backbone lies here; default: the experiment's name of it"),
    ] = None,
    client: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="its number among the clients; default: the server's choice"),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="seconds to try again for where the server does not let it in")
    ] = 600.0,
) -> None:
    """Take part in a run with rows that never leave this machine."""
    _end_tidily()
    from airtune.deploy.device import Device, Holdings, machine_of, to_stderr
    from airtune.deploy.flower.engine import join as joined
    from airtune.deploy.meter import Meter

    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"'{server}' is no address; give the server as HOST:PORT.")
    if ca is None and host not in ("127.0.0.1", "localhost"):
        raise UserError("--ca: beyond this machine everything is encrypted; give the ca.crt.")
    for name, path in (("--ca", ca), ("--key", key)):
        if path is not None and not path.is_file():
            raise UserError(f"{name}: there is no file '{path.name}'.")
    machine = machine_of(device)
    holdings = Holdings(train, test, personal, machine, model, client)
    meter = Meter(host.strip("[]"), int(port))
    try:
        joined(
            server,
            Device(holdings, to_stderr, meter).answer,
            None if ca is None else ca.resolve(),
            None if key is None else key.resolve(),
            wait,
            to_stderr,
            meter,
        )
    except KeyboardInterrupt:
        to_stderr("left; the same command joins again.")
        raise typer.Exit(130) from None


def _end_tidily() -> None:
    """Let SIGTERM end a command as Ctrl-C does, with its programs and temporary files."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _on(experiment: Experiment, links: str) -> Experiment:
    """Return the experiment on measured links, or on simulated ones."""
    try:
        return experiment.changed([f"cell.measured={str(links == 'measured').lower()}"])
    except UserError as error:
        raise UserError(f"{error} Or give --links simulated.") from error


def _bytes(megabytes: float) -> int:
    if not 0.001 <= megabytes <= 2000.0:
        raise UserError(f"--most: {megabytes:g} MB cannot be; give 0.001 to 2000.")
    return int(megabytes * 1e6)
