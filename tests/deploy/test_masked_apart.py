"""Masked sums over devices: the run in one process to the byte, whoever drops or sends rubbish."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import numpy as np
import pytest
import torch

pytest.importorskip("cryptography", reason="the extra secure is not installed")
pytest.importorskip("Crypto", reason="the extra secure is not installed")

from airtune import fitting
from airtune.deploy import halves, sockets
from airtune.deploy.device import Device
from airtune.deploy.masking import Masking
from airtune.errors import UserError
from airtune.federation import ledger, letters
from airtune.federation.contents import Done, Problem, SumStep, Task
from airtune.federation.in_process import LocalClients
from airtune.federation.interface import Order
from airtune.federation.letters import Letter
from airtune.federation.secure import participant
from airtune.federation.secure.messages import SecureSumError, Step, context, pack
from airtune.federation.secure.terms import Terms
from airtune.federation.session import Session
from airtune.radio.air import Air
from airtune.radio.grant import Grant
from airtune.wire import Dense, FixedPoint, Masked, decode, encode
from airtune.wire.masked import flat

MOST = {"secure_sum": True, "threshold": 3}  # of four
ALL = {"secure_sum": True, "threshold": 4}


class Heard(Device):
    """A device that notes what it heard and said, and does something else at times.

    ``acts`` are by round and stage, each for once.
    """

    def __init__(self, holdings, say, acts=None):
        super().__init__(holdings, say)
        self.holdings, self.say, self.acts = holdings, say, dict(acts or {})
        self.letters = []

    def answer(self, data):
        content = letters.read(data).content
        act = self.acts.pop((getattr(content, "round", 0), stage(content)), Device.answer)
        found = act(self, data)
        self.letters.append((content, letters.read(found) if found[:4] == b"AIRL" else None))
        return found


def stage(content):
    return content.step if isinstance(content, SumStep) else type(content).__name__.lower()


@pytest.fixture
def four(three):
    """Function that returns a small experiment of four clients and three rounds."""

    def values(**sections):
        return three(**({"clients": {"count": 4, "partition": "iid"}} | sections))

    return values


@pytest.fixture
def masked(four, in_process, devices, serve, tmp_path, monkeypatch):
    """Function that runs four devices of which client 1 acts up; returns rows, run and devices."""
    plain = sockets.serve

    def hangs_up(connection, answer, most_bytes=1 << 31):
        with contextlib.suppress(ConnectionError):
            plain(connection, answer, most_bytes)

    monkeypatch.setattr(sockets, "serve", hangs_up)

    def run(acts=None, security=MOST, limit=20.0, **sections):
        made = []

        def make(holdings, say):
            made.append(Heard(holdings, say, acts if holdings.wanted == 1 else None))
            return made[-1]

        values = four(security=security, **({"train": {"evaluate_every": 3}} | sections))
        _, parts, _ = in_process({**values, "train": {**values["train"], "rounds": 1}}, "parts")
        folder, _, run = serve(values, devices(parts, make), table=parts.table, limit=limit)
        return list(ledger.read(folder / "ledger.jsonl")), run, made

    return run


def uploads(rows, round):
    return {row["client"]: row for row in rows if row["row"] == "upload" and row["round"] == round}


def statuses(rows, round):
    return [row["status"] for _, row in sorted(uploads(rows, round).items())]


# What a device does.


def hang_up(device, data):
    raise ConnectionError


def train_and_hang_up(device, data):
    Device.answer(device, data)
    raise ConnectionError


def start_again(device, data):
    Device.__init__(device, device.holdings, device.say)
    return Device.answer(device, data)


def instead(change):
    """Answer with other bytes than those that would be sent, in a letter that is right."""

    def act(device, data):
        answer = letters.read(Device.answer(device, data))
        return letters.write(dataclasses.replace(answer, body=change(answer.body)))

    return act


# What the same run in one process is.


CASES = {
    "shared": {},
    "private": {"method": {"name": "fedavg", "private": ["classifier.*"]}},
    "lossy": {"cell": {"preset": "urban-micro", "packet_error": 0.1, "max_transmissions": 2}},
    "four of five": {"clients": {"count": 5, "partition": "iid", "per_round": 4}},
}


@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_a_masked_run_over_devices_equals_the_one_in_one_process(
    case, four, in_process, devices, serve
):
    values = four(security=MOST, **CASES[case])
    whole, parts, one = in_process(values)
    folder, _, other = serve(values, devices(parts), table=parts.table)
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    bills = [
        [{k: v for k, v in row.items() if not k.startswith("personal_")} for row in ledger.read(f)]
        for f in (whole / "ledger.jsonl", folder / "ledger.jsonl")
    ]
    assert bills[0] == bills[1]
    assert [row["step"] for row in bills[0] if row["row"] == "masking"][:2] == ["keys", "shares"]
    assert any(row["status"] == "delivered" for row in bills[0] if row["row"] == "upload")


def test_a_server_killed_in_a_masked_round_repeats_it_with_other_secrets(
    four, in_process, devices, serve, monkeypatch
):
    def killed(self):
        if self.round == 2:
            monkeypatch.setattr(Session, "_save", save)
            raise KeyboardInterrupt
        return save(self)

    made, save = [], Session._save
    values = four(security=MOST, method={"name": "fedavg", "private": ["classifier.*"]})
    _, parts, one = in_process(values)

    def make(holdings, say):
        made.append(Heard(holdings, say))
        return made[-1]

    paths = devices(parts, make)
    monkeypatch.setattr(Session, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        serve(values, paths, table=parts.table)
    _, _, other = serve(values, paths, table=parts.table)
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    for device in made:
        keys = [a.body for c, a in device.letters if isinstance(c, SumStep) and c.step == "keys"]
        assert len(keys) == 4 and len(set(keys)) == 4


def lose(monkeypatch, draw):
    """Lose what client 1 sends in round 2 under the name of this draw."""
    send = Air.uplink

    def uplink(self, bits, links, grant, draw_of="arq"):
        trip = send(self, bits, links, grant, draw_of)
        gone = (links.round, grant.client, draw_of) == (2, 1, draw)
        return dataclasses.replace(trip, arrived=False, status="lost") if gone else trip

    monkeypatch.setattr(Air, "uplink", uplink)


@pytest.mark.parametrize(
    ("at", "act", "draw", "status"),
    [
        ("keys", hang_up, "masking keys", "missed"),
        ("shares", hang_up, "masking shares", "missed"),
        ("task", hang_up, "arq", "missed"),
        ("task", train_and_hang_up, "arq", "missed"),
        ("unmasking", hang_up, "masking unmasking", "delivered"),
        ("shares", start_again, "masking shares", "missed"),
        ("task", start_again, "arq", "missed"),
        ("unmasking", start_again, "masking unmasking", "delivered"),
    ],
)
def test_a_device_that_drops_is_recovered_as_one_whose_message_the_air_lost(
    masked, four, in_process, monkeypatch, at, act, draw, status
):
    rows, other, _ = masked({(2, at): act})
    lose(monkeypatch, draw)
    _, _, one = in_process(four(security=MOST, train={"evaluate_every": 3}))
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    assert statuses(rows, 2) == ["delivered", status, "delivered", "delivered"]
    reason = uploads(rows, 2)[1]["reason"]
    assert (
        "started again" if act is start_again else "the connection to the device broke"
    ) in reason
    assert statuses(rows, 3) == ["delivered"] * 4


def test_a_device_started_again_before_the_keys_takes_part(masked):
    rows, _, _ = masked({(2, "keys"): start_again}, security=ALL)
    assert [statuses(rows, round) for round in (1, 2, 3)] == [["delivered"] * 4] * 3


@pytest.mark.parametrize(
    ("at", "others", "why"),
    [
        ("keys", "withheld", "keys of 3 clients came, and the masked sum takes 4."),
        ("shares", "withheld", "shares of 3 clients came, and the masked sum takes 4."),
        ("task", "refused", "masked payloads of 3 clients came, and the masked sum takes 4."),
        ("unmasking", "refused", "shares to unmask with of 3 clients came, and the masked sum"),
    ],
)
def test_below_the_threshold_the_ledger_says_why_and_the_run_goes_on(masked, at, others, why):
    rows, _, _ = masked({(2, at): hang_up}, security=ALL)
    for client in (0, 2, 3):
        row = uploads(rows, 2)[client]
        assert row["status"] == others and row["reason"].startswith(why)
    assert "the connection to the device broke" in uploads(rows, 2)[1]["reason"]
    assert [row["delivered"] for row in rows if row["row"] == "round"] == [0, 4, 0, 4]


# What does not belong here.


def plain(body):
    return encode(Dense({"classifier.weight": torch.zeros(8, 32)}))


NONE = [
    ("keys", lambda body: b"", "do not start as a message of a masked sum."),
    ("keys", lambda body: body[:-1], "63 bytes are not two keys."),
    ("keys", lambda body: body[:25] + bytes(64), "the same key"),
    ("keys", lambda body: pack(Step.KEYS, context("0", 1), 1, body[25:]), "another round"),
    ("keys", lambda body: pack(Step.KEYS, body[5:21], 0, body[25:]), "in the name of 0."),
    ("shares", lambda body: pack(Step.KEYS, body[5:21], 1, body[25:]), "of step 1 came where"),
    ("shares", lambda body: body[:-48], "are not shares for 4 clients."),
    ("shares", lambda body: pack(Step.SHARES, body[5:21], 2, body[25:]), "in the name of 2."),
    ("task", lambda body: body[:-1], "the payload was truncated or altered."),
    ("task", plain, "Dense payload is not what this method sends"),
    ("unmasking", lambda body: body[:-16], "bytes are not 4 shares."),
    ("unmasking", lambda body: body[:-1] + bytes([body[-1] ^ 1]), "sent a wrong share of"),
    ("unmasking", lambda body: pack(Step.UNMASK, body[5:21], 0, body[25:]), "the name of 0."),
]


def test_an_answer_that_is_none_is_refused_and_the_others_sum_stands(masked):
    acts = {(n, at): instead(change) for n, (at, change, _) in enumerate(NONE, 1)}
    rows, _, _ = masked(acts, train={"rounds": len(NONE) + 1, "evaluate_every": 20})
    totals = [row["delivered"] for row in rows if row["row"] == "round"]
    for round, (at, _, sentence) in enumerate(NONE, 1):
        status = "delivered" if at == "unmasking" else "refused"
        assert statuses(rows, round) == ["delivered", status, "delivered", "delivered"], sentence
        assert sentence in uploads(rows, round)[1]["reason"]
        assert totals[round] == 3 + (at == "unmasking")
    assert statuses(rows, len(NONE) + 1) == ["delivered"] * 4


def test_a_share_that_was_altered_is_named_where_the_sum_needs_it(masked):
    def change(body):
        return body[:-1] + bytes([body[-1] ^ 1])

    rows, _, _ = masked({(2, "unmasking"): instead(change)}, security=ALL)
    assert statuses(rows, 2) == ["refused"] * 4
    assert "client 1 sent a wrong share of" in uploads(rows, 2)[1]["reason"]
    assert statuses(rows, 3) == ["delivered"] * 4


def test_boxes_that_nobody_can_open_stop_the_sum_of_their_round_and_name_their_sender(masked):
    rows, _, _ = masked({(2, "shares"): instead(lambda body: body[:-144] + bytes(144))})
    for client in (0, 2, 3):
        row = uploads(rows, 2)[client]
        assert (row["status"], row["bits"]) == ("withheld", 0)
        assert row["reason"] == "of client 1: a box of shares was altered, or is of another time."
    assert [row["delivered"] for row in rows if row["row"] == "round"] == [0, 4, 0, 4]


# What leaves a device, and what stays.


def test_a_round_has_four_letters_and_only_masked_payloads_leave(masked, monkeypatch):
    plain = {}
    exchange = LocalClients.exchange

    def noted(self, orders):
        replies = exchange(self, orders)
        plain.update({(o.round, o.client): r.message for o, r in zip(orders, replies, strict=True)})
        return replies

    drawn, draw = [], participant.secrets.token_bytes

    def watched(count):
        found = draw(count)
        drawn.extend([found] if count else [])  # nothing is drawn to sound a link with
        return found

    monkeypatch.setattr(LocalClients, "exchange", noted)
    monkeypatch.setattr(participant.secrets, "token_bytes", watched)
    _, run, made = masked()
    shapes = run._method.uplink_shapes()
    fixed = FixedPoint(16.0, 4)
    weights = run._method.setup.examples / run._method.setup.examples.sum()
    for client, device in enumerate(made):
        steps = [(c, a) for c, a in device.letters if isinstance(c, SumStep | Task)]
        order = ["keys", "shares", "task", "unmasking"]
        assert [stage(content) for content, _ in steps] == order * 3
        for content, answer in steps:
            if isinstance(content, Task):
                sent = decode(answer.body, shapes)
                assert isinstance(sent, Masked)
                message = decode(plain[content.round, client], shapes)
                words = fixed.words(flat(message.tensors), float(weights[client]))
                assert np.mean(sent.words == words) < 0.01
                assert plain[content.round, client] not in answer.body
    assert len(drawn) >= 3 * 4 * 3
    said = b"".join(letters.write(answer) for device in made for _, answer in device.letters)
    kept = b"".join(
        path.read_bytes()
        for device in made
        for path in device.holdings.personal.rglob("*")
        if path.is_file()
    )
    assert kept and not any(secret in said + kept for secret in drawn)


def test_an_order_without_boxes_gets_no_upload(masked, monkeypatch):
    of = Task.of.__func__

    def forgets(cls, order, settled, boxes=None):
        return of(cls, order, settled, None)

    monkeypatch.setattr(Task, "of", classmethod(forgets))
    rows, _, made = masked()
    assert {row["status"] for row in rows if row["row"] == "upload"} == {"missed"}
    assert all("the order does not" in uploads(rows, 1)[client]["reason"] for client in range(4))
    answers = [answer for device in made for c, answer in device.letters if isinstance(c, Task)]
    assert answers and all(a.body == b"" and isinstance(a.content, Problem) for a in answers)


@pytest.mark.parametrize("place", ["train", "mask"])
def test_where_a_device_fails_after_the_boxes_nothing_leaves_it(masked, place):
    def fails(device, data):
        masking = device._own.masking
        people = masking._now[1]
        if place == "train":
            people._federation = None
        else:
            people._each[1].mask = None
        found = Device.answer(device, data)
        assert letters.read(found).body == b""
        people._federation = masking._federation
        return found

    rows, _, _ = masked({(2, "task"): fails})
    row = uploads(rows, 2)[1]
    assert (row["status"], row["bits"]) == ("missed", 0)
    assert "the device failed" in row["reason"]
    assert (
        statuses(rows, 2) == ["delivered", "missed", "delivered", "delivered"]
        and statuses(rows, 3) == ["delivered"] * 4
    )


def test_a_second_order_in_a_round_gets_no_second_payload(masked):
    def twice(device, data):
        first = Device.answer(device, data)
        letter = letters.read(data)
        again = dataclasses.replace(letter, sequence=letter.sequence + 1)
        second = letters.read(Device.answer(device, letters.write(again)))
        assert isinstance(second.content, Done) and not second.content.sent and not second.body
        assert "asked for twice" in second.content.problem
        return first

    rows, _, _ = masked({(2, "task"): twice})
    assert statuses(rows, 2) == ["delivered"] * 4
    assert statuses(rows, 3) == ["delivered"] * 4


def test_a_device_has_a_part_in_the_round_of_its_last_keys_alone():
    masking = Masking(None, Terms(0, 2, FixedPoint(16.0, 3), {}, np.ones(3) / 3), 1)
    first = masking.answer(SumStep(round=1, step="keys"), b"")
    again = masking.answer(SumStep(round=1, step="keys"), b"")
    assert first[:25] == again[:25] and first[25:57] != again[25:57] and first[57:] != again[57:]
    for step in ("shares", "unmasking"):
        with pytest.raises(SecureSumError, match="has no part in this round's masked sum"):
            masking.answer(SumStep(round=2, step=step), b"")
    with pytest.raises(SecureSumError, match="has no part in this round's masked sum"):
        masking.train(Order(1, 2, b"", Grant(1, 1e9, 0.2, 1e6, 1e6)), b"")


def test_steps_of_a_run_without_masks_are_refused(four, in_process, devices, serve):
    answers = []

    def ask(device, data):
        letter = letters.read(data)
        step = Letter(letter.run, letter.sequence - 1, SumStep(round=1, step="keys"))
        answers.append(letters.read(Device.answer(device, letters.write(step))).content)
        return Device.answer(device, data)

    values = four(train={"rounds": 1})
    _, parts, _ = in_process(values)
    paths = devices(parts, lambda holdings, say: Heard(holdings, say, {(1, "task"): ask}))
    serve(values, paths, table=parts.table)
    assert {type(each) for each in answers} == {Problem}
    assert [each.sentence for each in answers] == ["uploads of this run are not masked."] * len(
        answers
    )


def test_a_device_without_the_libraries_is_named_before_the_first_round(
    four, in_process, devices, serve, monkeypatch
):
    values = four(security=MOST)
    _, parts, _ = in_process(values)
    checked, check = [], halves.check_security

    def lacks(experiment, method):
        checked.append(method)
        monkeypatch.setattr(fitting, "find_spec", lambda name: None if len(checked) > 1 else name)
        check(experiment, method)

    monkeypatch.setattr(halves, "check_security", lacks)
    with pytest.raises(UserError, match="cannot take part: it does not fit this device, whose log"):
        serve(values, devices(parts), table=parts.table)
    assert len(checked) > 1


def test_a_late_device_is_a_dropout_and_its_late_answer_is_not_used(masked):
    def dawdle(device, data):
        found = Device.answer(device, data)
        time.sleep(4.0)
        return found

    rows, _, _ = masked({(2, "task"): dawdle}, limit=3.0)
    assert statuses(rows, 2) == ["delivered", "late", "delivered", "delivered"]
    assert uploads(rows, 2)[1]["reason"] == "the device did not answer within 3 s"
    assert [row["delivered"] for row in rows if row["row"] == "round"][2] == 3
    assert statuses(rows, 3)[2:] == ["delivered"] * 2
