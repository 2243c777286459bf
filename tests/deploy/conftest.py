"""Devices in threads or processes, whose rows are those of a run in one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from airtune.build import build, session
from airtune.deploy.device import Device, Holdings
from airtune.deploy.flower.processes import free_port
from airtune.deploy.halves import build_server
from airtune.deploy.sockets import SocketCarrier, listen
from airtune.experiment import Experiment
from airtune.federation.devices import Patience
from airtune.federation.remote import Remote
from airtune.federation.roster import run_name

RUN = bytes(range(16))
AIRTUNE = Path(sys.executable).with_name("airtune")


@pytest.fixture
def three(small):
    """Function that returns a small experiment of three clients and rounds with ideal links."""

    def values(task="classification", **sections):
        base = {"clients": {"count": 3, "partition": "iid"}, "cell": "ideal"}
        return small(task, **(base | sections))

    return values


@pytest.fixture
def in_process(tmp_path):
    """Function that runs an experiment in one process; returns folder, parts and session."""

    def run(values, name="whole"):
        folder = tmp_path / name
        folder.mkdir()
        experiment = Experiment(**values)
        parts = build(experiment)
        progress = session(parts, experiment, folder)
        list(progress.rounds())
        return folder, parts, progress

    return run


@pytest.fixture
def rows_of(tmp_path):
    """Function that writes the rows which a client has in one process: (train, test) files."""

    def write(parts, client):
        share, files = parts.shares[client], []
        for name, rows in (("train", share.train), ("test", share.test)):
            path = tmp_path / f"{name}{client}.jsonl"
            own = parts.table.train.iloc[rows]
            own = own[[column for column in own if not column.startswith("_")]]
            own.to_json(path, orient="records", lines=True)
            files.append(str(path) if len(rows) else None)
        return tuple(files)

    return write


@pytest.fixture
def devices(tmp_path, rows_of):
    """Function that starts a device in a thread for each client of a run; returns their sockets."""

    def start(parts, make=Device):
        paths = []
        for client in range(len(parts.shares)):
            train, test = rows_of(parts, client)
            personal = tmp_path / f"personal{client}"
            device = make(Holdings(train, test, personal, wanted=client), lambda sentence: None)
            path = tmp_path / f"{client}.sock"
            device._safely = in_turn(device._safely)
            threading.Thread(target=listen, args=(path, device.answer), daemon=True).start()
            paths.append(path)
        wait_for(paths)
        return paths

    return start


TURN = threading.Lock()


def in_turn(answer):
    """One device at a time: loading a model sets defaults for the whole process."""

    def taking_turns(letter):
        with TURN:
            return answer(letter)

    return taking_turns


def wait_for(paths, seconds=10.0):
    end = time.monotonic() + seconds
    while not all(path.exists() for path in paths) and time.monotonic() < end:
        time.sleep(0.005)


@pytest.fixture
def serve(tmp_path):
    """Function that runs an experiment over a carrier; returns folder, parts and session."""
    carriers = []

    def run(
        values, paths, name="apart", table=None, limit=20.0, come=20.0, stop_after=None, say=None
    ):
        while carriers:  # the one before was killed, and its connections with it
            carriers.pop().close()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        experiment = Experiment(**values)
        carrier = SocketCarrier([Path(path) for path in paths])
        carriers.append(carrier)
        wait = Patience(come, 20.0, limit)
        remote = Remote(carrier, RUN, len(paths), wait, say or (lambda sentence: None))
        kept = folder / "checkpoint" / "clients"
        if run_name(kept) is not None:
            remote.roster.recall(kept)
        remote.gather()
        parts = build_server(experiment, remote, table)
        progress = session(parts, experiment, folder)
        for totals in progress.rounds():
            if totals.round == stop_after:
                break
        return folder, parts, progress

    yield run
    for carrier in carriers:
        carrier.close()


@pytest.fixture
def command(tmp_path):
    """Function that starts `airtune` in an empty folder; what still runs ends with the test."""
    home = tmp_path / "work"
    home.mkdir()
    environment = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = []
    homes = tempfile.TemporaryDirectory(prefix="at-")  # short: sockets lie there
    environment["TMPDIR"] = homes.name

    def program(*arguments, log="log"):
        with (home / log).open("ab") as output:
            process = subprocess.Popen(
                [*map(str, arguments)], cwd=home, env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        started.append(process)
        return process

    def start(*arguments, log="log"):
        return program(AIRTUNE, *arguments, log=log)

    def run(*arguments, code=0):
        name = f"log{len(started)}"
        process = start(*arguments, log=name)
        process.wait(timeout=400)
        said = (home / name).read_text()
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said

    start.python = program
    start.run, start.home, start.homes, start.until = run, home, Path(homes.name), until
    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
    homes.cleanup()


def until(true, seconds=900.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture
def machines(command, three, in_process, rows_of, tmp_path):
    """A server and its three devices as commands, with rows as in one process, over TLS."""
    values = three(
        method={"name": "fedavg", "private": ["classifier.*"]},
        train={"rounds": 4, "evaluate_every": 4},
    )
    _, parts, _ = in_process(values)
    path, port = tmp_path / "four.yaml", free_port()
    path.write_text(yaml.safe_dump(values))
    keys = command.home / "keys"
    command.run("keys", "new", keys)
    for client in range(3):
        command.run("keys", "add", keys, f"device{client}")

    def serve(*more):
        return command("serve", path, "--port", port, "--tls-dir", keys, "--out", "apart",
                       "--limit", "120", "--quiet", *more, log="serve.log")  # fmt: skip

    def join(client, *more, key=None, ca=keys / "ca.crt", log=None):
        train, test = rows_of(parts, client)
        key = key or keys / "nodes" / f"device{client}.key"
        files = ["--train", train, "--test", test, "--personal", f"personal{client}"]
        own = [*(["--ca", ca] if ca else []), "--key", key, "--client", client, *files, *more]
        return command(
            "join", f"127.0.0.1:{port}", "--device", "cpu", *own, log=log or f"join{client}.log"
        )

    ledger = command.home / "apart" / "ledger.jsonl"

    def rounds():
        return ledger.read_text().count('"row":"round"') if ledger.exists() else 0

    def uploads():
        rows = [json.loads(line) for line in ledger.open()]
        return [row for row in rows if row["row"] == "upload"]

    serve.port, serve.keys, serve.rows = port, keys, lambda client: rows_of(parts, client)
    serve.rounds, serve.uploads = rounds, uploads
    return serve, join
