"""The ledger, the clock and the checkpoint, each alone."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
import torch

from airtune.errors import UserError
from airtune.federation import checkpoint, ledger
from airtune.federation.clock import Clock
from airtune.federation.ledger import Ledger
from airtune.federation.records import BroadcastRow, RoundRow, Status, UploadRow
from airtune.report.statuses import STATUSES

_TOTALS = {
    "uplink_bits": 0, "downlink_bits": 0, "seconds": 0.0, "joules": 0.0, "accuracy": 0.5,
    "loss": None, "personal_accuracy": None, "perplexity": None, "train_loss": None, "notes": {},
}  # fmt: skip


def test_history_sums_up_by_hand(tmp_path):
    book = Ledger(tmp_path / "l.jsonl")
    book.append([RoundRow(0, accuracy=0.1)])
    book.append([BroadcastRow(1, 8, 1.0, 2.0, 8.0, 2, 2), UploadRow(1, 0, "delivered", bits=80)])
    book.append([RoundRow(1, uplink_bits=80, downlink_bits=8, seconds=1.5, joules=3.0)])
    book.append(
        [RoundRow(2, uplink_bits=40, downlink_bits=8, seconds=0.5, joules=1.0, accuracy=0.3)]
    )
    rows = ledger.read(tmp_path / "l.jsonl")
    history = ledger.history(rows)
    assert history["total_uplink_bits"].tolist() == [0, 80, 120]
    assert history["total_downlink_bits"].tolist() == [0, 8, 16]
    assert history["total_seconds"].tolist() == [0, 1.5, 2.0]
    assert history["total_joules"].tolist() == [0, 3.0, 4.0]
    assert math.isnan(history["accuracy"][1])
    assert ledger.uploads(rows)["bits"].tolist() == [80]


def test_a_ledger_of_an_earlier_version_lacks_columns_and_can_be_read():
    (row,) = ledger.history([{"row": "round", "round": 0, **_TOTALS}]).to_dict("records")
    assert row["accuracy"] == 0.5 and "gradient_norm" not in row


def test_what_was_not_committed_is_cut_off(tmp_path):
    path = tmp_path / "l.jsonl"
    first = Ledger(path)
    first.append([RoundRow(0)])
    kept = first.size
    first.append([RoundRow(1)])
    Ledger(path, kept).append([RoundRow(1, delivered=5)])
    assert [row["delivered"] for row in ledger.read(path)] == [0, 5]


def test_a_ledger_shorter_than_its_checkpoint_says_is_damage(tmp_path):
    (tmp_path / "l").write_text("{}\n")
    with pytest.raises(UserError, match="shorter than its checkpoint"):
        Ledger(tmp_path / "l", 100)
    assert (tmp_path / "l").read_text() == "{}\n"


def test_json_has_no_nan_and_no_infinity(tmp_path):
    Ledger(tmp_path / "l").append([UploadRow(1, 0, "lost", granted_bits=math.inf, snr_db=math.nan)])
    text = (tmp_path / "l").read_text()
    row = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the ledger"))
    assert row["granted_bits"] is None
    assert row["snr_db"] is None


def test_every_status_of_the_ledger_is_known_to_the_reports():
    assert set(get_args(Status)) == {status.name for status in STATUSES}


def test_events_come_in_order_of_time_and_late_ones_are_given_up():
    clock: Clock[str] = Clock(10.0)
    for seconds, event in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (1.0, "a2"), (9.0, "late")):
        clock.after(seconds, event)
    assert [(clock.now, event) for event in clock.drain(15.0)] == [
        (11.0, "a"), (11.0, "a2"), (12.0, "b"), (13.0, "c"),
    ]  # fmt: skip
    assert clock.now == 13.0
    assert clock.give_up(15.0) == ["late"]
    assert clock.now == 15.0
    assert clock.give_up(20.0) == []
    assert clock.now == 15.0


def test_a_checkpoint_returns_what_was_saved(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tree = {
        "round": 3,
        "now": 0.1 + 0.2,
        "none": None,
        "list": [1, None, 2.5],
        "state": {"a": shared, "view": shared[0], "half": shared.to(torch.bfloat16), "empty": {}},
        "clients": {7: {"private": {"x/y": shared.T}}},
    }
    checkpoint.save(tmp_path / "state", tree)
    back = checkpoint.load(tmp_path / "state")
    assert {key: back[key] for key in ("round", "now", "none", "list")} == {
        key: tree[key] for key in ("round", "now", "none", "list")
    }
    for key in ("a", "view", "half"):
        assert back["state"][key].dtype == tree["state"][key].dtype
        assert torch.equal(back["state"][key], tree["state"][key])
    assert torch.equal(back["clients"][7]["private"]["x/y"], shared.T)
    assert back["state"]["empty"] == {}


def test_a_kill_while_saving_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "state", {"round": 1})

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "state", {"round": 2})
    assert checkpoint.load(tmp_path / "state") == {"round": 1}


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:50], lambda b: b"", lambda b: b"x" * len(b), lambda b: b[:-9] + b"?" + b[-8:]],
)
def test_a_damaged_checkpoint_is_said(tmp_path, damage):
    checkpoint.save(tmp_path / "state", {"round": 1, "t": torch.zeros(100)})
    file = tmp_path / "state"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="this checkpoint is corrupt"):
        checkpoint.load(tmp_path / "state")


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.load(tmp_path / "none") is None


def test_notes_say_null_for_what_json_cannot_say():
    row = {"notes": {"covariance": float("nan"), "kept": 0.5}, "seconds": float("inf")}
    assert ledger.plain(row) == {"notes": {"covariance": None, "kept": 0.5}, "seconds": None}
