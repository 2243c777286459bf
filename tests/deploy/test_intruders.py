"""Who reaches the port without a key, or the server's machine: no code of theirs runs.

Real SuperLinks and SuperNodes over TLS, around a device that turns letters round.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from airtune.deploy import keys
from airtune.deploy.flower import engine
from airtune.deploy.flower.carrier import FlowerCarrier
from airtune.deploy.flower.processes import SuperLink, environment, free_port

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
import sys
from pathlib import Path
from airtune.deploy.flower.engine import join

ca, key = (Path(each) for each in sys.argv[2:])
join(sys.argv[1], lambda data: data[::-1], ca, key, 60.0, print)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A served run with one device: its port, what reaches the device, and its folder of keys."""
    home, port, links = tmp_path_factory.mktemp("served"), free_port(), []

    class Known(SuperLink):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            links.append(self)

    keys.new(home / "keys")
    key = keys.add(home / "keys", "device")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(engine, "SuperLink", Known)
        carrier = stack.enter_context(engine.serving("127.0.0.1", port, home / "keys"))
        command = [sys.executable, "-c", DEVICE, f"127.0.0.1:{port}", home / "keys" / "ca.crt", key]
        device = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(carrier.nodes)
            yield port, links[0], carrier, home / "keys"
        finally:
            device.terminate()
            device.wait()


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


def echoed(carrier):
    (node,) = carrier.nodes()
    ticket = carrier.post(node, b"abc", 60.0)
    return carrier.collect([ticket], 60.0) == {ticket: b"cba"}


@pytest.mark.slow
def test_without_a_key_the_served_port_takes_no_run_and_tells_nothing(server, intruder):
    port, _, carrier, folder = server
    ca = folder / "ca.crt"
    public = str(keys.registered(folder)[0])
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
    _, link, carrier, folder = server
    theirs = FlowerCarrier(tmp_path / "theirs", lambda: "no log", lambda: None)
    setting = f'socket="{tmp_path / "theirs"}"'
    # Whoever is on the server's machine reaches Flower itself, past the front.
    said = intruder(link.port, folder / "ca.crt", "run", intruder.app, "other", "-c", setting)
    assert '"success": true' in said
    theirs.wait(60.0)  # the run goes on, but what runs on either side is the installed app
    assert echoed(theirs)
    assert not list(intruder.traces.iterdir())
    theirs.close()
    assert echoed(carrier)
