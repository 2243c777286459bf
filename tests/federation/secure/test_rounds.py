"""Runs with masked sums: the model of the plain run to the quantisation, and every byte charged."""

from __future__ import annotations

import dataclasses

import pytest
import torch

pytest.importorskip("cryptography", reason="the extra secure is not installed")
pytest.importorskip("Crypto", reason="the extra secure is not installed")

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.fitting import check_security
from airtune.methods import registry
from airtune.methods.method import Method
from airtune.radio.air import Air
from airtune.wire import Dense, FixedPoint

SECURE = {"secure_sum": True}
HEADER = 25


@pytest.fixture
def run(small, tmp_path):
    """Function that runs five clients; returns (session, rows by kind, bytes of the ledger)."""

    def execute(name, stop_after=None, **sections):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        base = {"cell": "ideal", "train": {"rounds": 1}}
        experiment = Experiment(**small(**(base | sections)))
        parts = build(experiment)
        progress = session(parts, experiment, folder)
        for totals in progress.rounds():
            if totals.round == stop_after:
                break
        rows = ledger.read(folder / "ledger.jsonl")
        kinds = {row["row"] for row in rows}
        by_kind = {kind: [row for row in rows if row["row"] == kind] for kind in kinds}
        return progress, by_kind, (folder / "ledger.jsonl").read_bytes()

    return execute


def lose(monkeypatch, draw, clients):
    """Lose the messages of these clients that are drawn under this name."""
    send = Air.uplink

    def uplink(self, bits, links, grant, draw_of="arq"):
        trip = send(self, bits, links, grant, draw_of)
        gone = draw_of == draw and grant.client in clients
        return dataclasses.replace(trip, arrived=False, status="lost") if gone else trip

    monkeypatch.setattr(Air, "uplink", uplink)


def gap(one, other):
    assert set(one.adapter) == set(other.adapter)
    return max(float((one.adapter[n] - other.adapter[n]).abs().max()) for n in one.adapter)


# The sum's own error for five clients, and float32's for means of numbers below 4.
NEAR = FixedPoint(16.0, 5).error(5, 0.3) + 4 * 5 * 2**-24


@pytest.mark.parametrize(
    "method",
    [
        {"name": "fedavg", "private": ["classifier.*"]},
        {"name": "fedprox"},
        {"name": "ffa_lora"},
        {"name": "pftt", "private": ["*.lora_A.*"]},
    ],
)
def test_one_round_is_the_plain_one_to_the_quantisation(run, method):
    plain, _, _ = run("plain", method=method)
    secure, rows, _ = run("secure", method=method, security=SECURE)
    assert max(float(t.abs().max()) for t in plain.adapter.values()) < 4.0
    assert 0.0 < gap(plain, secure) <= NEAR
    assert all(row["notes"]["clipped"] == 0.0 for row in rows["upload"])


def test_a_run_has_the_accuracy_of_the_plain_one_and_killed_it_goes_on_with_the_same_bytes(run):
    train = {"rounds": 2, "evaluate_every": 1}
    plain, rows, _ = run("plain", train=train)
    one, secure_rows, first = run("one", train=train, security=SECURE)
    for before, after in zip(rows["round"], secure_rows["round"], strict=True):
        assert after["accuracy"] == pytest.approx(before["accuracy"], abs=1 / 60 + 1e-9)
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-3)
    assert gap(plain, one) < 1e-2
    # Its secrets are others, and neither the model nor the bill knows it.
    run("cut", stop_after=1, train=train, security=SECURE)
    again, _, second = run("cut", train=train, security=SECURE)
    assert first == second
    assert gap(one, again) == 0.0


def test_every_step_is_charged_by_its_bytes(run):
    _, plain, _ = run("plain")
    secure, rows, _ = run("secure", security=SECURE)
    steps = {row["step"]: row for row in rows["masking"]}
    assert list(steps) == ["keys", "shares", "unmasking"]
    assert {(row["sent"], row["arrived"]) for row in steps.values()} == {(5, 5)}
    assert steps["keys"]["uplink_bits"] == 8 * 5 * (HEADER + 64)
    assert steps["keys"]["downlink_bits"] == 8 * (HEADER + 5 * 68)
    assert steps["shares"]["uplink_bits"] == 8 * 5 * (HEADER + 16 + 5 * 32 + 4 * 48)
    assert steps["shares"]["downlink_bits"] == 8 * 5 * (HEADER + 4 * 52)
    assert steps["unmasking"]["uplink_bits"] == 8 * 5 * (HEADER + 5 * 16)
    assert steps["unmasking"]["downlink_bits"] == 8 * (HEADER + 5 * 4)
    # One word for each number behind 33 bytes of container; names do not travel.
    numbers = sum(t.numel() for t in secure.adapter.values())
    assert {row["bits"] for row in rows["upload"]} == {8 * (4 * numbers + 33)}
    assert rows["upload"][0]["bits"] < plain["upload"][0]["bits"]
    total, before = rows["round"][1], plain["round"][1]
    for way in ("uplink_bits", "downlink_bits"):
        extra = sum(row[way] for row in steps.values())
        own = sum(r["bits"] for r in rows["upload" if way == "uplink_bits" else "broadcast"])
        assert total[way] == own + extra
    assert total["downlink_bits"] > before["downlink_bits"]
    assert total["delivered"] == 5


def test_seconds_and_joules_of_the_steps_by_hand(run):
    cell = {"packet_error": 0.0, "allocation": "equal", "bandwidth_hz": 5e6, "devices": "laptop"}
    _, rows, _ = run("secure", cell=cell, security=SECURE)
    (cast,) = rows["broadcast"]
    uploads = rows["upload"]
    power = 10 ** ((23 - 30) / 10)
    for row in rows["masking"]:
        up = [row["uplink_bits"] / 5 / each["rate_bps"] for each in uploads]
        down = row["downlink_bits"] / cast["rate_bps"]
        assert row["seconds"] == pytest.approx(max(up) + down)
        assert row["joules"] == pytest.approx((power + 0.1) * sum(up) + 5 * 0.2 * down)
    finish = max(row["compute_seconds"] + row["seconds"] for row in uploads)
    steps = sum(row["seconds"] for row in rows["masking"])
    total = rows["round"][1]
    assert steps > 0
    assert total["seconds"] == pytest.approx(cast["seconds"] + finish + steps)
    spent = sum(row["joules"] for kind in ("broadcast", "masking", "upload") for row in rows[kind])
    spent += sum(row["compute_joules"] for row in uploads)
    assert total["joules"] == pytest.approx(spent)
    # The first upload begins when keys and shares are there.
    before = sum(row["seconds"] for row in rows["masking"][:2])
    for row in uploads:
        own = cast["seconds"] + before + row["compute_seconds"] + row["seconds"]
        assert row["arrived_s"] == pytest.approx(own)


@pytest.mark.parametrize("draw", ["masking keys", "masking shares", "arq"])
def test_a_lost_message_drops_its_client_and_the_others_sum_is_the_plain_one(
    run, monkeypatch, draw
):
    lose(monkeypatch, "arq", {2})
    plain, _, _ = run("plain")
    monkeypatch.undo()
    lose(monkeypatch, draw, {2})
    secure, rows, _ = run("secure", security=SECURE)
    assert gap(plain, secure) <= NEAR
    lost = rows["upload"][2]
    if draw == "arq":
        assert (lost["status"], lost["bits"] > 0) == ("lost", True)
    else:
        assert (lost["status"], lost["bits"], lost["compute_joules"]) == ("withheld", 0, 0.0)
        step = draw.removeprefix("masking ")
        assert lost["reason"] == f"what it sent for the masked sum did not arrive ({step})"
    assert [row["status"] for row in rows["upload"]].count("delivered") == 4
    assert rows["round"][1]["delivered"] == 4


def test_a_client_lost_while_unmasking_is_in_the_sum(run, monkeypatch):
    plain, _, _ = run("plain")
    lose(monkeypatch, "masking unmasking", {2})
    secure, rows, _ = run("secure", security=SECURE)
    assert gap(plain, secure) <= NEAR
    assert {row["status"] for row in rows["upload"]} == {"delivered"}
    assert rows["masking"][-1]["arrived"] == 4


@pytest.mark.parametrize(
    ("draw", "status", "reason"),
    [
        ("masking keys", "withheld", "keys of 3 clients came, and the masked sum takes 4."),
        ("masking shares", "withheld", "shares of 3 clients came, and the masked sum takes 4."),
        ("arq", "refused", "masked payloads of 3 clients came, and the masked sum takes 4."),
        (
            "masking unmasking",
            "refused",
            "shares to unmask with of 3 clients came, and the masked sum takes 4.",
        ),
    ],
)
def test_below_the_threshold_the_model_stays_and_the_ledger_says_why(
    run, monkeypatch, draw, status, reason
):
    lose(monkeypatch, draw, {1, 3})
    secure, rows, _ = run("secure", security=SECURE)
    initial = secure._method.setup.initial
    assert all(torch.equal(secure.adapter[name], initial[name]) for name in initial)
    said = [(row["status"], row["reason"]) for row in rows["upload"] if row["client"] in (0, 2, 4)]
    assert said == [(status, reason)] * 3
    assert rows["round"][1]["delivered"] == 0


def test_numbers_beyond_the_bound_are_counted(run):
    _, rows, _ = run("secure", security=SECURE | {"clip": 1e-3})
    assert all(row["notes"]["clipped"] > 0 for row in rows["upload"])


def test_a_method_whose_sum_is_not_enough_says_why():
    allowed = set()
    for name in registry.names():
        method = registry.find(name)
        experiment = Experiment(method=method.Config(name=name), security=SECURE)
        try:
            check_security(experiment, method)
            allowed.add(name)
        except UserError as error:
            assert f"'{name}' cannot do with a sum of uploads, as its " in str(error)
    assert allowed == {"fedavg", "fedprox", "ffa_lora", "pftt", "pftt_plus", "pfit", "pwff"}
    for name in allowed:
        sent = registry.find(name).uplink_payload
        assert Dense in (sent if isinstance(sent, tuple) else (sent,))


def test_a_plugged_in_aggregate_has_to_say_that_a_sum_is_enough():
    class Own(registry.find("fedavg")):
        def aggregate(self, state, deliveries):
            return state

    class Said(Own):
        why_not_summed = None

    experiment = Experiment(security=SECURE)
    with pytest.raises(UserError, match="combines them in a way of its own"):
        check_security(experiment, Own)
    check_security(experiment, Said)
    check_security(experiment, Method)


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"method": {"name": "fedavg", "change_bits": 4}}, r"^method\.change_bits: rounded"),
        ({"method": {"name": "fedavg", "value_type": "float16"}}, r"^method\.value_type: numbers"),
        ({"clients": {"count": 2}}, r"^security\.secure_sum: the sum of 2 clients"),
        ({"security": SECURE | {"threshold": 5}}, r"^security\.threshold: it is 5, and of 10"),
        (
            {"clients": {"count": 3}, "security": SECURE | {"threshold": 2}},
            r"^security\.threshold: it is 2, and of 3 .* at least 3",
        ),
        ({"security": SECURE | {"threshold": 11}}, r"^security\.threshold: it is 11, and of 10"),
        ({"security": SECURE | {"clip": 0}}, r"^security\.clip: input should be greater than 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(sections, match):
    with pytest.raises(UserError, match=match):
        experiment = Experiment(**({"security": SECURE, "clients": {"count": 10}} | sections))
        check_security(experiment, registry.find(experiment.method.name))
