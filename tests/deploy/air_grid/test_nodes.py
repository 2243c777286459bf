"""A grid over a cell as a grid: when replies come, who is a client, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from airtune.deploy.flower import partitions
from airtune.errors import UserError
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


def test_pulling_moves_the_clock_to_the_next_arrival(app):
    grid = LocalGrid(app, CLIENTS)
    air = AirGrid(grid, cell_of(), compute_seconds=[3.0, 1.0, 2.0, 0.5, 1.5])
    nodes = list(air.get_node_ids())
    names = {}
    for client in (0, 1, 2):
        (name,) = air.push_messages([Message(content(), nodes[client], "train")])
        names[name] = client
    order, times = [], []
    while names:
        for reply in air.pull_messages(set(names)):
            order.append(names.pop(reply.metadata.reply_to_message_id))
            times.append(air.now)
    assert order == [1, 2, 0]
    for client, at in zip(order, times, strict=True):
        (row,) = uploads(air, client=client)
        assert row.arrived_s == at
        # Pushed at the same instant; a round of its own each, so links differ.
        cast = next(r for r in air.rows if r.row == "broadcast" and r.round == row.round)
        assert at == pytest.approx(cast.seconds + row.compute_seconds + row.seconds)
    assert sum(row.seconds for row in air.rows if row.row == "round") == pytest.approx(air.now)
    assert [row.round for row in air.rows if row.row == "round"] == [2, 3, 1]
    # What came before now is there at once: no time passes.
    (early,) = air.push_messages([Message(content(), nodes[3], "train")])
    (slow,) = air.push_messages([Message(content(), nodes[0], "train")])
    air.pull_messages([slow])
    now = air.now
    assert len(air.pull_messages([early])) == 1
    assert air.now == now


def test_a_reply_is_had_once(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of())
    names = list(air.push_messages(to_all(air)))
    while names:
        for reply in air.pull_messages(names):
            names.remove(last := reply.metadata.reply_to_message_id)
    (again,) = air.pull_messages([last])
    assert again.error.code == 3


def test_a_failing_app_is_its_own_error_and_sends_nothing(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of())
    replies = air.send_and_receive(to_all(air, kind="train.fail"))
    assert [(r.error.code, r.error.reason) for r in replies] == [
        (2, "<class 'RuntimeError'>:<'boom'>")
    ] * CLIENTS
    assert {(row.status, row.bits, row.joules) for row in uploads(air)} == {("withheld", 0, 0.0)}


class Dead(LocalGrid):
    """Never has an answer to its last message."""

    def pull_messages(self, message_ids):
        return super().pull_messages([name for name in message_ids if name != self.last])

    def push_messages(self, messages):
        names = super().push_messages(messages)
        self.last = names[-1] if messages[0].metadata.message_type == "train" else None
        return names


def test_a_reply_that_never_comes_is_given_up_by_wall_time(app):
    grid = Dead(app, CLIENTS)
    air = AirGrid(grid, cell_of(), poll_s=0.01)
    replies = air.send_and_receive(to_all(air), timeout=0.05)
    assert len(list(replies)) == CLIENTS - 1
    (row,) = uploads(air, status="withheld")
    assert row.reason == "did not answer in time"


def test_nodes_are_known_by_their_partitions(app):
    configs = [{"partition-id": k} for k in (3, 0, 4, 1, 2)]
    grid = LocalGrid(app, configs, seed=5)
    air = AirGrid(grid, cell_of())
    ids = {int(c.node_config["partition-id"]): node for node, c in grid._contexts.items()}
    assert list(air.get_node_ids()) == [ids[k] for k in range(CLIENTS)]
    assert air.now == 0.0 and not air.rows


def test_an_app_that_does_not_tell_goes_by_node_ids_with_a_warning():
    grid = LocalGrid(ClientApp(), 3)
    air = AirGrid(grid, cell_of())
    with pytest.warns(UserWarning, match="tell_partition"):
        assert list(air.get_node_ids()) == sorted(grid.get_node_ids())


def test_a_node_that_does_not_answer_is_left_out_and_asked_again(app, monkeypatch):
    monkeypatch.setattr(partitions, "_PATIENCE_S", 0.0)
    grid = LocalGrid(app, 3)
    pull, silent = grid.pull_messages, {"local-2"}
    monkeypatch.setattr(grid, "pull_messages", lambda names: pull(set(names) - silent))
    air = AirGrid(grid, cell_of())
    assert len(list(air.get_node_ids())) == 2
    assert len(list(air.get_node_ids())) == 3


def test_a_device_that_registers_again_takes_the_place_of_its_old_node(app):
    grid = LocalGrid(app, 2)
    air = AirGrid(grid, cell_of())
    first, second = air.get_node_ids()
    grid._contexts[7] = grid._contexts[first]
    assert list(air.get_node_ids()) == [7, second]


def test_what_flower_does_not_take_comes_back_as_an_error(app):
    grid = LocalGrid(app, 2)
    nodes = list(grid.get_node_ids())
    air = AirGrid(grid, cell_of(), clients={nodes[0]: 0, 5: 1, nodes[1]: 2})
    replies = air.send_and_receive(
        [Message(content(), n, "train") for n in (nodes[0], 5, nodes[1])]
    )
    (error,) = [reply.error for reply in replies if reply.has_error()]
    assert error.reason == "withheld: Flower did not take the message"
    assert [row.status for row in uploads(air)] == ["delivered", "withheld", "delivered"]


def test_nodes_may_be_given(app):
    grid = LocalGrid(app, 3)
    nodes = sorted(grid.get_node_ids(), reverse=True)
    air = AirGrid(grid, cell_of(), clients={node: k for k, node in enumerate(nodes[:2])})
    assert list(air.get_node_ids()) == nodes[:2]
    with pytest.raises(UserError, match="nobody says which client"):
        air.push_messages([Message(content(), nodes[2], "train")])


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        ([0, 9], "the cell has 5"),
        ([0, 0], "both have partition-id 0"),
        ([0, None], "does not tell"),
    ],
)
def test_partitions_that_cannot_be_are_refused(app, partitions, said):
    configs = [{} if k is None else {"partition-id": k} for k in partitions]
    with pytest.raises(UserError, match=said):
        AirGrid(LocalGrid(app, configs), cell_of()).get_node_ids()


def test_what_cannot_be_asked_is_refused_in_a_sentence(app):
    grid = LocalGrid(app, CLIENTS)
    with pytest.raises(UserError, match="one a client"):
        AirGrid(grid, cell_of(), compute_seconds=[1.0, 2.0])
    with pytest.raises(UserError, match="not negative"):
        AirGrid(grid, cell_of(), compute_seconds=-1.0)
    with pytest.raises(UserError, match="poll_s"):
        AirGrid(grid, cell_of(), poll_s=0.0)
    air = AirGrid(grid, cell_of())
    with pytest.raises(UserError, match="two messages"):
        air.push_messages(to_all(air) + to_all(air))
    narrow = cell_of(allocation="resource-blocks", bandwidth_hz=360e3)
    air = AirGrid(grid, narrow)
    with pytest.raises(UserError, match="2 resource blocks"):
        air.push_messages(to_all(air))
