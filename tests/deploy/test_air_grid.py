"""Flower apps over a cell, without SuperLink: bills by hand, fates by our Air, clocks by events."""

from __future__ import annotations

import math
import random
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg

from airtune.deploy.flower import partitions
from airtune.deploy.flower.exchange import Answer, Cast, Exchange
from airtune.errors import UserError
from airtune.federation import ledger
from airtune.flower import LOST_ON_AIR, AirGrid, Cell, CellConfig, LocalGrid, tell_partition
from airtune.radio.air import Air
from airtune.radio.grant import Grant

CLIENTS = 5
SIZE = 1000
BITS = 8 * (8 * SIZE + 128)  # float64, and NumPy's header of a file


@pytest.fixture
def app():
    """An app that adds its partition's number plus one, and the list of who trained."""
    made, trained = tell_partition(ClientApp()), []

    @made.train()
    def train(message, context):
        client = int(context.node_config["partition-id"])
        trained.append(client)
        (weights,) = message.content["arrays"].to_numpy_ndarrays()
        told = MetricRecord({"num-examples": 10 * (client + 1)})
        if "slow" in message.content.get("config", {}):
            told["compute-seconds"] = message.content["config"]["slow"] * (client == 2)
        content = RecordDict({"arrays": ArrayRecord([weights + client + 1.0]), "told": told})
        return Message(content, reply_to=message)

    @made.train("fail")
    def fail(message, context):
        raise RuntimeError("boom")

    made.trained = trained
    return made


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


def test_a_push_is_billed_as_by_hand(app):
    cell = cell_of(allocation="equal", bandwidth_hz=5e6, devices="laptop")
    air = AirGrid(LocalGrid(app, CLIENTS), cell, compute_seconds=[0.1, 0.2, 0.3, 0.4, 0.5])
    replies = air.send_and_receive(to_all(air))
    assert len(replies) == CLIENTS
    links = cell.links(1)
    power, noise_hz = 10 ** ((23 - 30) / 10), 10 ** ((-174 + 5 - 30) / 10)
    finish, joules = [], 0.0
    for row in uploads(air, status="delivered"):
        snr_hz = power * links.gain[row.client] / noise_hz
        width = min(1e6, snr_hz / 10**-0.5)
        rate = width * min(5.55, math.log2(1 + snr_hz / width / 10**0.2))
        assert row.bits == BITS + 64
        assert row.seconds == pytest.approx(row.bits / rate, rel=1e-9)
        assert row.joules == pytest.approx((power + 0.1) * row.seconds)
        assert row.snr_db == pytest.approx(10 * math.log10(snr_hz / 1e6))
        assert row.compute_seconds == pytest.approx(0.1 * (row.client + 1))
        assert row.compute_joules == pytest.approx(40.0 * row.compute_seconds)
        finish.append(row.compute_seconds + row.seconds)
        joules += row.joules + row.compute_joules
    cast, total = air.rows[0], air.rows[-1]
    down_hz = 10 ** ((33 - 30) / 10) * links.gain.min() / 10 ** ((-174 + 9 - 30) / 10)
    width = min(5e6, down_hz / 10**-0.5)
    rate = width * min(5.55, math.log2(1 + down_hz / width / 10**0.2))
    assert (cast.bits, cast.listeners, cast.heard) == (BITS, CLIENTS, CLIENTS)
    assert cast.seconds == pytest.approx(BITS / rate)
    assert cast.joules == pytest.approx(CLIENTS * 0.2 * cast.seconds)
    assert air.now == total.seconds == pytest.approx(cast.seconds + max(finish))
    assert total.joules == pytest.approx(joules + cast.joules)
    assert (total.uplink_bits, total.downlink_bits) == (CLIENTS * (BITS + 64), BITS)


def test_min_max_delay_lets_all_finish_together_over_the_whole_band(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of(bandwidth_hz=1e6), compute_seconds=0.05)
    air.send_and_receive(to_all(air))
    sent = uploads(air)
    finish = [row.compute_seconds + row.seconds for row in sent]
    assert max(finish) == pytest.approx(min(finish), rel=1e-9)
    assert sum(row.bandwidth_hz for row in sent) == pytest.approx(1e6)


def test_fates_are_those_that_our_air_draws(app):
    cell = cell_of(packet_error=0.3, max_transmissions=3, bandwidth_hz=2e6, seed=3)
    grid, seen = AirGrid(LocalGrid(app, CLIENTS), cell), set()
    for push in (1, 2, 3, 4):
        replies = {m.metadata.src_node_id: m for m in grid.send_and_receive(to_all(grid))}
        nodes = list(grid.get_node_ids())
        for row in uploads(grid, round=push):
            grant = Grant(row.client, math.inf, row.power_w, row.bandwidth_hz, row.rate_bps)
            trip = Air(cell.config, 3).uplink(row.bits, cell.links(push), grant)
            assert (row.status, row.seconds, row.joules) == (trip.status, trip.seconds, trip.joules)
            reply = replies[nodes[row.client]]
            assert reply.has_content() == trip.arrived
            if not trip.arrived:
                assert reply.error.code == LOST_ON_AIR
                assert reply.error.reason == f"{row.status}: {row.reason}"
            seen.add(row.status)
    assert seen == {"delivered", "lost"}


def test_a_lost_downlink_does_not_reach_the_client(app):
    # A base station weaker than its clients, whose fades nobody knows beforehand.
    weak = {"fading": "rayleigh", "radius_m": 400, "base_station_power_dbm": 0}
    cell = cell_of(40, csi="statistical", fade_margin_db=0, **weak)
    air = AirGrid(LocalGrid(app, 40), cell)
    replies = list(air.send_and_receive(to_all(air)))
    missed = {row.client for row in uploads(air, status="missed")}
    assert 0 < len(missed) < 40
    assert set(app.trained) == set(range(40)) - missed
    assert len(replies) == 40
    assert {r.error.code for r in replies if r.has_error()} == {LOST_ON_AIR}


def test_who_is_known_to_be_in_outage_is_not_asked(app):
    air = AirGrid(LocalGrid(app, 40), cell_of(40, snr_db=(-45, 10)))
    air.send_and_receive(to_all(air))
    skipped = {row.client for row in uploads(air, status="skipped")}
    assert 0 < len(skipped) < 40
    assert not skipped.intersection(app.trained)
    assert air.rows[-1].asked == 40


def test_the_share_of_lost_messages_is_the_packets_error_rate():
    cell = cell_of(20, packet_error=0.3, max_transmissions=1)
    air, pushes, lost = Air(cell.config, cell.seed), 100, 0
    for push in range(pushes):
        exchange = Exchange(cell, air, push, 0.0, [Cast(8000, list(range(20)))])
        exchange.settle({client: Answer(8000, 0.0) for client in exchange.heard})
        lost += sum(fate.status == "lost" for fate in exchange.fates.values())
    assert abs(lost / (20 * pushes) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / (20 * pushes))


def test_a_slow_client_is_late_and_makes_nobody_else_late(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of(bandwidth_hz=2e6, deadline_s=1.0))
    replies = air.send_and_receive(to_all(air, content(slow=30.0)))
    assert [row.client for row in uploads(air, status="late")] == [2]
    assert len(uploads(air, status="delivered")) == 4
    (late,) = [reply for reply in replies if reply.has_error()]
    assert late.error.reason.startswith("late: cannot send")
    (row,) = uploads(air, client=2)
    assert (row.bits, row.compute_seconds) == (0, 30.0)
    assert air.now < 1.0 + air.rows[0].seconds


def test_a_reply_after_the_deadline_is_late_at_the_deadline(app):
    # Without bits to wait for, only computing is late, and no allocation knows of it.
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of(ideal=True, deadline_s=0.5))
    for push in (1, 2):
        replies = list(air.send_and_receive(to_all(air, content(slow=30.0))))
        assert air.now == 0.5 * push
        assert [reply.has_error() for reply in replies] == [False] * 4 + [True]
        assert replies[-1].error.reason == "late: not there 0.5 s after the broadcast"
    assert [row.arrived_s for row in uploads(air, round=2)] == [0.5, 0.5, None, 0.5, 0.5]


def test_a_strategy_averages_what_arrived(app):
    cell = cell_of(packet_error=0.4, max_transmissions=1, packet_bits=10**6, seed=2)
    air = AirGrid(LocalGrid(app, CLIENTS), cell)
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS)
    found = strategy.start(air, ArrayRecord([np.zeros(SIZE)]), num_rounds=3)
    expected, seen = 0.0, 0
    for push in (1, 2, 3):
        arrived = [row.client + 1 for row in uploads(air, round=push, status="delivered")]
        expected += sum(c * c for c in arrived) / sum(arrived)
        seen += len(arrived)
    assert 3 <= seen < 3 * CLIENTS
    np.testing.assert_allclose(found.arrays.to_numpy_ndarrays()[0], expected)
    notes = [row.notes for row in air.rows if row.row == "round"]
    assert notes == [{"server_round": 1.0}, {"server_round": 2.0}, {"server_round": 3.0}]


@pytest.mark.parametrize("strategy", [FedAdam, FedMedian, FedTrimmedAvg])
def test_other_strategies_run_unchanged(app, strategy):
    cell = cell_of(packet_error=0.2, max_transmissions=1, packet_bits=10**6)
    air = AirGrid(LocalGrid(app, CLIENTS), cell)
    made = strategy(fraction_evaluate=0.0, min_available_nodes=CLIENTS)
    found = made.start(air, ArrayRecord([np.zeros(SIZE)]), num_rounds=2)
    assert np.isfinite(found.arrays.to_numpy_ndarrays()[0]).all()
    assert found.arrays.to_numpy_ndarrays()[0].any()
    assert [row.asked for row in air.rows if row.row == "round"] == [CLIENTS] * 2


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


def test_equal_contents_are_one_broadcast_and_others_go_one_by_one(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of())
    nodes = list(air.get_node_ids())
    air.send_and_receive([Message(content(), node, "train") for node in nodes])
    other = [Message(content(own=client), node, "train") for client, node in enumerate(nodes)]
    air.send_and_receive(other)
    one, many = (row for row in air.rows if row.row == "broadcast")
    assert (one.bits, one.listeners) == (BITS, CLIENTS)
    assert (many.bits, many.listeners) == (CLIENTS * (BITS + 64), CLIENTS)
    rates = [
        Air(air._cell.config, 0).downlink(1, air._cell.links(2), np.array([k])).rate_bps
        for k in range(CLIENTS)
    ]
    assert many.seconds == pytest.approx(sum((BITS + 64) / rate for rate in rates))


def test_opaque_arrays_count_by_their_bytes(app):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of())
    blob = Array(dtype="float32", shape=(10**6,), stype="mine.v1", data=b"x" * 77)
    told = ConfigRecord({"a": 1, "b": True, "c": "é", "d": b"123", "e": [1.0, 2.0], "f": ["xy"]})
    record = RecordDict({"arrays": ArrayRecord({"w": blob}), "told": told})
    air.send_and_receive(to_all(air, record, "query.nothing"))
    assert air.rows[0].bits == 8 * (77 + 8 + 1 + 2 + 3 + 16 + 2)


def test_its_ledger_is_read_as_that_of_a_run(app, tmp_path):
    air = AirGrid(LocalGrid(app, CLIENTS), cell_of())
    with pytest.raises(UserError, match="no push has finished"):
        _ = air.history
    for _ in range(2):
        air.send_and_receive(to_all(air))
    air.save(tmp_path / "ledger.jsonl")
    rows = ledger.read(tmp_path / "ledger.jsonl")
    history = ledger.history(rows)
    assert list(history["round"]) == [1, 2]
    assert history["total_seconds"].iloc[-1] == pytest.approx(air.now)
    assert history.equals(air.history)
    assert list(air.uploads["message"]) == ["train"] * 2 * CLIENTS
    with pytest.raises(UserError, match="cannot be written"):
        air.save(tmp_path / "nowhere" / "ledger.jsonl")


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


def test_a_clients_word_of_its_seconds_is_taken_if_it_can_be(app):
    for said, counted in ((4.0, 4.0), (-1.0, 0.25), (math.inf, 0.25), (math.nan, 0.25)):
        air = AirGrid(LocalGrid(app, CLIENTS), cell_of(), compute_seconds=0.25)
        node = list(air.get_node_ids())[2]
        air.send_and_receive([Message(content(slow=said), node, "train")])
        assert [row.compute_seconds for row in uploads(air)] == [counted]


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
    path = Path(__file__).parents[2] / "examples" / "air_grid.py"
    assert len(path.read_text().splitlines()) <= 40
    air = runpy.run_path(str(path), run_name="__main__")["air"]
    assert "total_uplink_bits" in capsys.readouterr().out
    assert {row.status for row in uploads(air)} == {"delivered", "late"}
