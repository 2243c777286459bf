"""Devices on this machine for a trial: each client's rows in files of its own, a process each."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airtune.deploy import watched
from airtune.deploy.sockets import SocketCarrier
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.post import Carrier
from airtune.fitting import check_data
from airtune.learning.data.partition import partition
from airtune.learning.data.sources import Table, load_table
from airtune.methods.registry import find

Way = Literal["local", "flower-local"]  # by sockets of this machine, or through Flower on it
_START_S = 120.0  # a process imports torch for seconds, many at a time for longer


@dataclass(frozen=True)
class ClientFiles:
    """A client's rows: those to learn from, and those to test on where it has any."""

    train: Path
    test: Path | None


def divide(experiment: Experiment, folder: Path) -> tuple[Table, list[ClientFiles]]:
    """Write each client's rows as a run in one process would divide them; return all data too."""
    method = find(experiment.method.name)
    table = load_table(experiment.data, experiment.seed, method.needs_public)
    check_data(table, experiment.method.name, method)
    shares = partition(table.train, experiment.clients, experiment.seed)
    columns = [name for name in table.train if not str(name).startswith("_")]
    files = []
    for client, share in enumerate(shares):
        paths = []
        for part, rows in (("train", share.train), ("test", share.test)):
            path = folder / f"{part}-{client}.parquet"
            table.train.iloc[rows][columns].to_parquet(path, index=False)
            paths.append(path)
        files.append(ClientFiles(paths[0], paths[1] if len(share.test) else None))
    return table, files


def worker_command(socket: Path, files: ClientFiles, personal: Path, client: int) -> list[str]:
    """Return the command that starts a client's process."""
    command = [sys.executable, "-m", "airtune.deploy.worker", str(socket)]
    command += ["--train", str(files.train), "--personal", str(personal), "--client", str(client)]
    return command + (["--test", str(files.test)] if files.test is not None else [])


@contextlib.contextmanager
def trial(experiment: Experiment, over: Way) -> Iterator[tuple[Carrier, Table]]:
    """Start a process for each client; yield what reaches them, and all data.

    They end with this context. Raises UserError where one does not start.
    """
    with tempfile.TemporaryDirectory(prefix="airtune-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        table, clients = divide(experiment, folder)
        paths = []
        for client, files in enumerate(clients):
            path = folder / f"{client}.sock"
            command = worker_command(path, files, folder / f"personal-{client}", client)
            process = watched.start(command)
            stack.callback(watched.end, process)
            paths.append((path, process))
        _wait(paths)
        yield stack.enter_context(_carrier([path for path, _ in paths], over)), table


@contextlib.contextmanager
def _carrier(paths: list[Path], over: Way) -> Iterator[Carrier]:
    if over == "flower-local":
        from airtune.deploy.flower.engine import trial as flower

        with flower(paths) as carrier:
            yield carrier
    else:
        with contextlib.closing(SocketCarrier(paths)) as sockets:
            yield sockets


def _wait(devices: list[tuple[Path, subprocess.Popen[bytes]]]) -> None:
    end = time.monotonic() + _START_S
    for client, (path, process) in enumerate(devices):
        while not path.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise UserError(f"--federation: the process of client {client} did not start.")
            time.sleep(0.05)
