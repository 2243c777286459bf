"""The same app over the same cell, in this process and on a real SuperLink with two SuperNodes."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from airtune.deploy.flower.processes import SuperLink, any_supernode, free_port
from airtune.flower import LocalGrid

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "lines"
version = "1.0.0"
description = "Adds numbers"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "airtune"

[tool.flwr.app.components]
serverapp = "lines.server:app"
clientapp = "lines.client:app"

[tool.flwr.app.config]
socket = ""
"""
CLIENT = """\
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from airtune.flower import tell_partition

app = tell_partition(ClientApp())

@app.train()
def train(message, context):
    client = int(context.node_config["partition-id"])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    told = {"num-examples": 3 + client, "compute-seconds": 0.1 * (client + 1)}
    arrays = ArrayRecord([0.9 * weights + client + 1.0])
    return Message(RecordDict({"a": arrays, "m": MetricRecord(told)}), reply_to=message)
"""
SERVER = """\
import hashlib, json, os, random
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from airtune.flower import AirGrid, Cell, CellConfig

app = ServerApp()

def run(grid):
    random.seed(0)
    # Large packets, and one try: some are lost.
    cell = CellConfig(packet_error=0.3, max_transmissions=1, packet_bits=1000000)
    air = AirGrid(grid, Cell(cell, 2, seed=4))
    found = FedAvg(fraction_evaluate=0.0).start(air, ArrayRecord([np.zeros(500)]), num_rounds=2)
    (weights,) = found.arrays.to_numpy_ndarrays()
    rows = [vars(row) for row in air.rows]
    return {"now": air.now, "rows": rows, "sum": hashlib.sha256(weights.tobytes()).hexdigest()}

@app.main()
def main(grid, context):
    path = context.run_config["socket"]
    try:
        told = run(grid)
    except BaseException as error:
        told = {"failed": repr(error)}
    with open(path + ".part", "w") as file:
        json.dump(told, file)
    os.replace(path + ".part", path)
"""


def write(app):
    """Write this app, whose server writes what came of it to a file."""
    (app / "lines").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    for name, text in (("__init__", ""), ("client", CLIENT), ("server", SERVER)):
        (app / "lines" / f"{name}.py").write_text(text)
    return app


@pytest.mark.slow
def test_a_superlink_gives_the_clock_ledger_and_model_of_one_process(tmp_path):
    here: dict = {}
    exec(compile(SERVER, "server.py", "exec"), here)
    whole = json.loads(json.dumps(here["run"](LocalGrid(here_client(), 2))))
    assert {row["status"] for row in whole["rows"] if "status" in row} == {"delivered", "lost"}

    port, result, programs = free_port(), tmp_path / "result.json", []
    link = SuperLink(port, tmp_path / "superlink", None, side=None)
    programs.append(link.program)
    try:
        for client in range(2):
            home, config = tmp_path / f"node{client}", f"partition-id={client} num-partitions=2"
            programs.append(any_supernode(f"127.0.0.1:{port}", free_port(), home, config))
        link.submit(write(tmp_path / "app"), result)
        end = time.monotonic() + 400
        while not result.exists() and time.monotonic() < end:
            assert all(program.code() is None for program in programs), programs[0].why()
            time.sleep(0.2)
    finally:
        for program in reversed(programs):
            program.end()
    assert json.loads(result.read_text()) == whole


def here_client():
    """Return the ClientApp; both files call theirs ``app``."""
    names: dict = {}
    exec(compile(CLIENT, "client.py", "exec"), names)
    return names["app"]
