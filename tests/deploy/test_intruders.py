"""Who reaches the port without a key, or the server's machine: no code of theirs runs.

Real SuperLinks and SuperNodes over TLS, around a device that turns letters round.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from airtune.deploy import keys
from airtune.deploy.flower import engine
from airtune.deploy.flower.carrier import FlowerCarrier
from airtune.deploy.flower.processes import SuperLink, environment, free_port
from airtune.errors import UserError

MOST = 3_000_000
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "intruder"
version = "1.0.0"
description = "Leaves a file where it runs"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "intruder.server:app"
clientapp = "intruder.client:app"

[tool.flwr.app.config]
socket = ""
"""
SERVER = """\
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

Path({0!r}, "server").touch()
app = ServerApp()

@app.main()
def main(grid, context):
    grid.send_and_receive(
        [Message(RecordDict(), node, "query") for node in grid.get_node_ids()], timeout=30
    )
"""
CLIENT = """\
from pathlib import Path
from flwr.clientapp import ClientApp

Path({0!r}, "client").touch()
app = ClientApp()
"""
DEVICE = """\
import os, sys
from pathlib import Path
from airtune.deploy.flower.engine import join
from airtune.errors import UserError

def answer(data):  # turned round, or so many random bytes
    return os.urandom(int(data)) if data.isdigit() else data[::-1]


def say(sentence):
    print(sentence, flush=True)


ca, key = (Path(each) if each else None for each in sys.argv[3:])
try:
    join(sys.argv[1], answer, ca, key, float(sys.argv[2]), say)
except UserError as error:
    say(str(error))
"""


@dataclass
class Served:
    """A served run: where, what it said, and what reaches its devices."""

    port: int
    keys: Path
    said: list[str]
    link: SuperLink
    carrier: FlowerCarrier


@contextlib.contextmanager
def served(home, tls=True):
    links, said, port, folder = [], [], free_port(), home / "keys"

    class Known(SuperLink):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            links.append(self)

    keys.new(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SuperLink", Known)
        with engine.serving("127.0.0.1", port, folder if tls else None, MOST, said.append) as way:
            yield Served(port, folder, said, links[0], way)


@contextlib.contextmanager
def joined(port, log, ca="", key="", wait=60):
    command = [sys.executable, "-c", DEVICE, f"127.0.0.1:{port}", str(wait), str(ca), str(key)]
    with log.open("w") as output:
        device = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield device
    finally:
        device.terminate()
        device.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A run over TLS with one device."""
    home = tmp_path_factory.mktemp("served")
    with served(home) as run:
        key = keys.add(run.keys, "device")
        with joined(run.port, home / "log", run.keys / "ca.crt", key):
            until(run.carrier.nodes)
            yield run


def until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


@pytest.fixture
def intruder(tmp_path):
    """Function that calls Flower's command from elsewhere; its app leaves files where it runs."""
    home, app, traces = (tmp_path / name for name in ("home", "app", "traces"))
    for folder in (home, app / "intruder", traces):
        folder.mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    for name, text in (("__init__", ""), ("server", SERVER), ("client", CLIENT)):
        (app / "intruder" / f"{name}.py").write_text(text.format(str(traces)))

    def call(port, ca, *arguments):
        connection = f'[superlink.other]\naddress = "127.0.0.1:{port}"\n'
        (home / "config.toml").write_text(f'{connection}root-certificates = "{ca}"\n')
        found = subprocess.run(
            [sys.executable.replace("python", "flwr"), *arguments, "--format", "json"],
            env=environment(home), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return found.stdout + found.stderr

    call.app, call.traces = str(app), traces
    return call


def echoed(carrier, node=None):
    ticket = carrier.post(node or carrier.nodes()[0], b"abc", 60.0)
    return carrier.collect([ticket], 60.0) == {ticket: b"cba"}


@pytest.mark.slow
def test_without_a_key_the_served_port_takes_no_run_and_tells_nothing(server, intruder):
    port, carrier, ca = server.port, server.carrier, server.keys / "ca.crt"
    public = str(keys.registered(server.keys)[0])
    for asked in (
        ("run", intruder.app, "other"),
        ("list", "other"),
        ("supernode", "list", "other"),
        ("supernode", "register", public, "other"),
    ):
        said = intruder(port, ca, *asked)
        assert '"success": true' not in said, asked
    time.sleep(5)
    assert not list(intruder.traces.iterdir())
    assert echoed(carrier)


@pytest.mark.slow
def test_code_of_a_foreign_run_is_executed_neither_by_the_server_nor_by_a_device(
    server, intruder, tmp_path
):
    theirs = FlowerCarrier(tmp_path / "theirs", lambda: "no log", lambda: None)
    setting = f'socket="{tmp_path / "theirs"}"'
    # Whoever is on the server's machine reaches Flower itself, past the front.
    said = intruder(
        server.link.port, server.keys / "ca.crt", "run", intruder.app, "other", "-c", setting
    )
    assert '"success": true' in said
    # What runs on either side is the installed app, which knows no socket but that of our run.
    with pytest.raises(UserError, match="did not start the run within 25 s"):
        theirs.wait(25.0)
    theirs.close()
    assert echoed(server.carrier)
    assert not list(intruder.traces.iterdir())


@pytest.mark.slow
def test_an_answer_that_is_too_large_does_not_arrive_and_the_next_one_does(server):
    carrier, (node,) = server.carrier, server.carrier.nodes()
    lost = carrier.post(node, str(3 * MOST).encode(), 15.0)
    until(lambda: any("device answers more than" in sentence for sentence in server.said))
    assert echoed(carrier)  # while Flower still waits for the rest of it
    until(lambda: carrier.collect([lost], 0.1) == {lost: None})  # when its time is over
    ticket = carrier.post(node, str(MOST).encode(), 60.0)
    assert len(carrier.collect([ticket], 60.0)[ticket]) == MOST


@pytest.mark.slow
def test_two_runs_do_not_mix_and_go_on_while_others_are_refused(server, tmp_path):
    logs = {}
    with contextlib.ExitStack() as stack:
        (tmp_path / "other").mkdir()
        other = stack.enter_context(served(tmp_path / "other", tls=False))

        def join(name, run, ca="", key="", wait=3):
            logs[name] = tmp_path / name
            return stack.enter_context(joined(run.port, logs[name], ca, key, wait))

        ca, stranger = server.keys / "ca.crt", keys.add(other.keys, "stranger")
        refused = [
            join("a key of the other run", server, ca, stranger),
            join("another authority", server, other.keys / "ca.crt", stranger),
            join("plain HTTP to TLS", server),
            join("TLS to plain HTTP", other, ca, stranger),
        ]
        join("at home", other, wait=60)
        until(other.carrier.nodes)
        for device in refused:
            device.wait(timeout=90)
        reasons = {
            name: log.read_text().splitlines()[-1]
            for name, log in logs.items()
            if name != "at home"
        }
        assert all("does not let this device in: " in reason for reason in reasons.values())
        assert [len(run.carrier.nodes()) for run in (server, other)] == [1, 1]
        assert set(server.carrier.nodes()).isdisjoint(other.carrier.nodes())
        assert echoed(server.carrier) and echoed(other.carrier)


@pytest.mark.slow
def test_a_revoked_device_is_out_and_the_others_go_on(server, tmp_path):
    (first,) = server.carrier.nodes()
    key = keys.add(server.keys, "late").rename(tmp_path / "carried.key")
    time.sleep(2.5)  # as long as a list of nodes is good for
    server.carrier.nodes()  # takes note of the key
    with joined(server.port, tmp_path / "log", server.keys / "ca.crt", key, 20) as late:
        until(lambda: len(server.carrier.nodes()) == 2)
        (second,) = set(server.carrier.nodes()) - {first}
        assert echoed(server.carrier, second)
        keys.revoke(server.keys, "late")
        until(lambda: server.carrier.nodes() == [first])
        assert echoed(server.carrier, first)
        assert "the key of late was revoked; it takes part no longer" in server.said
        late.wait(timeout=90)
    said = (tmp_path / "log").read_text()
    assert "does not let this device in: " in said
    assert ".key" not in said
