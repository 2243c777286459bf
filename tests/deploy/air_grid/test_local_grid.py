"""The grid of one process: the same costs as of any backend, copies, no torch."""

from __future__ import annotations

import random
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from airtune.flower import AirGrid, Cell, CellConfig, LocalGrid

CLIENTS = 5
SIZE = 1000
BITS = 8 * (8 * SIZE + 128)  # float64, and NumPy's header of a file


def cell_of(clients=CLIENTS, seed=0, **values):
    return Cell(CellConfig(**{"packet_error": 0.0, **values}), clients, seed)


def content(**config):
    return RecordDict(
        {"arrays": ArrayRecord([np.zeros(SIZE)]), "config": ConfigRecord(config)}
    )  # fmt: skip


def to_all(grid, record=None, kind="train"):
    record = record or content()
    return [Message(record, node, kind) for node in grid.get_node_ids()]


def uploads(air, **wanted):
    rows = [row for row in air.rows if row.row == "upload"]
    return [row for row in rows if all(getattr(row, k) == v for k, v in wanted.items())]


class Untidy(LocalGrid):
    """Gives replies back one by one in a random order, as machines do; ids change with the seed."""

    def pull_messages(self, message_ids):
        names = list(message_ids)
        if any(name not in self._replies for name in names):
            queued = {message.metadata.message_id for message in self._queue}
            got = super().pull_messages([name for name in names if name in queued])
            self._replies.update({m.metadata.reply_to_message_id: m for m in got})
        there = [name for name in names if name in self._replies]
        return [self._replies.pop(random.Random(len(there)).choice(there))] if there else []


def test_nothing_comes_and_no_time_passes_before_all_of_a_push_are_there(app):
    air = AirGrid(Untidy(app, CLIENTS), cell_of())
    air.get_node_ids()
    names = list(air.push_messages(to_all(air)))
    pulls = 0
    while not (replies := list(air.pull_messages(names[:1]))):
        assert air.now == 0.0
        pulls += 1
    assert pulls == CLIENTS - 1
    assert air.now > 0.0
    assert replies[0].has_content()


@pytest.mark.parametrize("ideal", [False, True])
def test_clock_ledger_and_model_do_not_depend_on_the_backend(app, ideal):
    found = []
    for kind, seed in ((LocalGrid, 0), (LocalGrid, 7), (Untidy, 1)):
        random.seed(0)
        air = AirGrid(
            kind(app, CLIENTS, seed=seed),
            cell_of(ideal=True) if ideal else cell_of(packet_error=0.3, max_transmissions=3),
            compute_seconds=0.0 if ideal else np.linspace(0.1, 0.3, CLIENTS),
            poll_s=1e-4,
        )
        strategy = FedAvg(fraction_train=0.6, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
        result = strategy.start(air, ArrayRecord([np.zeros(SIZE)]), num_rounds=4)
        found.append((air.now, air.rows, result.arrays.to_numpy_ndarrays()[0].tobytes()))
    assert found[0] == found[1] == found[2]
    assert (found[0][0] > 0.0) != ideal


def test_what_a_node_gets_is_a_copy():
    emptying = ClientApp()

    @emptying.train()
    def train(message, context):
        seen = message.content["arrays"].to_numpy_ndarrays(keep_input=False)
        return Message(RecordDict({"n": MetricRecord({"seen": len(seen)})}), reply_to=message)

    grid = LocalGrid(emptying, 3)
    record = content()
    replies = grid.send_and_receive([Message(record, n, "train") for n in grid.get_node_ids()])
    assert [reply.content["n"]["seen"] for reply in replies] == [1, 1, 1]
    assert len(record["arrays"]) == 1
    assert list(grid.push_messages([Message(record, 5, "train")])) == [None]


def test_it_needs_no_torch():
    code = (
        "import sys, airtune.flower; "
        "assert not {'torch', 'pandas', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_the_example_runs(capsys):
    path = Path(__file__).parents[3] / "examples" / "air_grid.py"
    assert len(path.read_text().splitlines()) <= 40
    air = runpy.run_path(str(path), run_name="__main__")["air"]
    assert "total_uplink_bits" in capsys.readouterr().out
    assert {row.status for row in uploads(air)} == {"delivered", "late"}
