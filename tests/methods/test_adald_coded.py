"""Coded AdaLD: few bits, readable whatever was lost before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.federation.interface import Order
from airtune.radio.grant import Grant
from airtune.wire import WireError, decode, encode

CODED = {"name": "adald_coded", "share": 0.4, "whole_rounds": 0, "k_max": 4}


def run(small, folder, method=CODED, **sections):
    folder.mkdir(exist_ok=True)
    experiment = Experiment(**small(method=method, **sections))
    parts = build(experiment)
    progress = session(parts, experiment, folder)
    list(progress.rounds())
    rows = ledger.read(folder / "ledger.jsonl")
    return parts, progress, [row for row in rows if row["row"] == "upload"]


def test_it_takes_a_part_of_the_bits_and_stays_near_the_models_entropy(small, tmp_path):
    cell = {"cell": "ideal", "train": {"rounds": 5}, "data": {"public_rows": 100}}
    _, _, plain = run(small, tmp_path / "plain", {"name": "adald", "k_max": 4}, **cell)
    _, _, coded = run(small, tmp_path / "coded", **cell)
    assert sum(r["bits"] for r in coded) < 0.25 * sum(r["bits"] for r in plain)
    head = 8 * (32 + 19 + 4)  # container, header, and the coder's last word
    for row in coded:
        assert row["bits"] <= 1.05 * row["notes"]["model_bits"] + head


def test_rounds_that_were_lost_do_no_harm(small, tmp_path, monkeypatch):
    """Whatever is lost, what arrives later is read as it was sent."""
    experiment = Experiment(**small(method=CODED, cell="ideal", train={"rounds": 6}))
    parts = build(experiment)
    exchange = parts.clients.exchange

    def losing(orders):
        replies = exchange(orders)
        round = orders[0].round
        # In round 2 nobody's upload arrives, in round 3 only client 1's, in round 4 not client 1's.
        lost = {2: range(5), 3: (0, 2, 3, 4), 4: (1,)}.get(round, ())
        return [replace(r, message=None) if r.client in lost else r for r in replies]

    monkeypatch.setattr(parts.clients, "exchange", losing)
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    rows = [r for r in ledger.read(tmp_path / "ledger.jsonl") if r["row"] == "upload"]
    statuses = {(row["round"], row["client"]): row["status"] for row in rows}
    assert {status for (round, _), status in statuses.items() if round > 4} == {"delivered"}
    assert statuses[3, 1] == "delivered"
    assert progress._state["version"] == 5  # the round in which nothing came made none


def test_the_server_reads_what_the_client_meant(small, tmp_path, monkeypatch):
    """Beside the broadcast, client and server find the same entries and values."""
    experiment = Experiment(**small(method=CODED, cell="ideal"))
    parts = build(experiment)
    method, sent, read = parts.method, [], []
    code, accept = method._code, method.accept

    upload, last = method.upload, []

    def coding(values, index, reference, version, texts):
        last[:] = [(values.clone(), index.clone())]
        return code(values, index, reference, version, texts)

    def uploading(client, grant):
        payload = upload(client, grant)
        sent.append(((client.round, client.index), *last[0]))
        return payload

    def accepting(state, payload):
        read.append(accept(state, payload))
        return read[-1]

    monkeypatch.setattr(method, "_code", coding)
    monkeypatch.setattr(method, "accept", accepting)
    monkeypatch.setattr(method, "upload", uploading)
    list(session(parts, experiment, tmp_path).rounds())
    assert len(sent) == len(read) == 15
    sent.sort(key=lambda each: each[0])  # the server reads in the order of clients
    for (_, values, index), got in zip(sent, read, strict=True):
        order = index.argsort(1)
        assert torch.equal(index.gather(1, order), got.index)
        step = (values.max() - values.min()) / 15
        assert (values.gather(1, order) - got.values).abs().max() <= 0.5 * step + 1e-5


def test_a_message_against_another_version_is_refused(small):
    parts = build(Experiment(**small(method=CODED)))
    method, state = parts.method, parts.method.start()
    message = encode(method.broadcast(state, None))
    grant = Grant(0, np.inf, 0.2, 1e6, np.inf)
    (reply,) = parts.clients.exchange([Order(0, 1, message, grant)])
    payload = decode(reply.message, method.uplink_shapes())
    assert len(method.accept(state, payload).texts) == payload.texts
    with pytest.raises(WireError, match="version 0 of what is known"):
        method.accept({**state, "version": 3}, payload)
    with pytest.raises(WireError, match="were asked for"):
        method.accept(state, replace(payload, texts=payload.texts + 1))


def test_every_text_is_asked_about_in_turn(small):
    early = build(Experiment(**small(method={**CODED, "whole_rounds": 2}))).method
    everything = set(range(len(early.setup.public)))
    assert set(early.asked(0).tolist()) == set(early.asked(1).tolist()) == everything
    assert len(early.asked(2)) == round(0.4 * len(everything))
    parts = build(Experiment(**small(method={**CODED, "share": 0.3})))
    method, texts = parts.method, len(parts.method.setup.public)
    asked = [set(method.asked(version).tolist()) for version in range(4)]
    assert all(len(each) == round(0.3 * texts) for each in asked)
    assert set.union(*asked) == set(range(texts))
    assert not asked[0] & asked[1]


def test_the_server_remembers_what_nobody_was_asked_about(small, tmp_path):
    parts, progress, _ = run(small, tmp_path, train={"rounds": 3})
    known = progress._state["known"]["values"]
    spoken = set().union(*(parts.method.asked(v).tolist() for v in range(3)))
    there = torch.isfinite(known).any(1).nonzero().squeeze(1).tolist()
    assert set(there) == spoken


def test_what_does_not_fit_gets_fewer_entries_then_fewer_texts_then_nothing(small):
    method = {**CODED, "min_texts": 5, "share": 1.0, "uplink_seconds": None}
    parts = build(Experiment(**small(method=method)))
    message = encode(parts.method.broadcast(parts.method.start(), None))

    def answer(bits):
        grant = Grant(0, float(bits), 0.2, 1e6, 1e9)
        return parts.clients.exchange([Order(0, 1, message, grant)])[0]

    whole = answer(1e6)
    half = answer(0.8 * 8 * len(whole.message))
    tight = answer(600)
    nothing = answer(400)
    assert whole.notes["k"] == 4
    assert 1 <= half.notes["k"] < 4 and half.notes["texts"] == whole.notes["texts"]
    assert tight.notes["k"] == 1 and tight.notes["retreat"] == "fewer texts"
    assert 5 <= tight.notes["texts"] < whole.notes["texts"]
    assert nothing.message is None and "do not fit" in nothing.problem
    assert 8 * len(half.message) <= 0.8 * 8 * len(whole.message)
    assert 8 * len(tight.message) <= 600
