"""Flower apps over a cell, without SuperLink: bills by hand, fates by our Air."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg

from airtune.deploy.flower.exchange import Answer, Cast, Exchange
from airtune.errors import UserError
from airtune.federation import ledger
from airtune.flower import LOST_ON_AIR, AirGrid, Cell, CellConfig, LocalGrid
from airtune.radio.air import Air
from airtune.radio.grant import Grant

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


def test_a_clients_word_of_its_seconds_is_taken_if_it_can_be(app):
    for said, counted in ((4.0, 4.0), (-1.0, 0.25), (math.inf, 0.25), (math.nan, 0.25)):
        air = AirGrid(LocalGrid(app, CLIENTS), cell_of(), compute_seconds=0.25)
        node = list(air.get_node_ids())[2]
        air.send_and_receive([Message(content(slow=said), node, "train")])
        assert [row.compute_seconds for row in uploads(air)] == [counted]
