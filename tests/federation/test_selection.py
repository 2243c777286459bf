"""Rules of selection in whole runs: what they remember survives a stop, what fails is recorded."""

import json

import pytest

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment


def run(experiment, folder, stop_after=None):
    folder.mkdir(exist_ok=True)
    progress = session(build(experiment), experiment, folder)
    for totals in progress.rounds():
        if totals.round == stop_after:
            break
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return progress, rows


def asked(rows, round):
    return sorted(r["client"] for r in rows if r.get("client", -1) >= 0 and r["round"] == round)


def test_fairness_stopped_and_resumed_ends_with_the_same_bytes(small, tmp_path):
    experiment = Experiment(
        **small(
            clients={"per_round": 2, "selection": "proportional-fair", "fairness_rounds": 3.0},
            train={"rounds": 4},
        )
    )
    whole, rows = run(experiment, tmp_path / "whole")
    run(experiment, tmp_path / "parts", stop_after=2)
    resumed, _ = run(experiment, tmp_path / "parts")
    ledgers = [(tmp_path / f / "ledger.jsonl").read_bytes() for f in ("whole", "parts")]
    assert ledgers[0] == ledgers[1]
    rates = [each._state["average_rates"].numpy().tobytes() for each in (whole, resumed)]
    assert rates[0] == rates[1]
    # Two each: who was served in the first round is behind those who were not.
    assert not set(asked(rows, 1)) & set(asked(rows, 2))


@pytest.mark.parametrize("method", ["fedavg", "soft"])
def test_a_deadline_that_nobody_meets_is_recorded(small, tmp_path, method):
    experiment = Experiment(
        **small(
            method=method,
            clients={"per_round": 3, "selection": "deadline-feasible"},
            cell={"deadline_s": 1e-6},
            train={"rounds": 2},
        )
    )
    _, rows = run(experiment, tmp_path / "run")
    skipped = [row for row in rows if row.get("status") == "skipped"]
    assert [len(asked(rows, round)) for round in (1, 2)] == [3, 3]
    assert len(skipped) == 6 and all("by the deadline" in row["reason"] for row in skipped)
    totals = [row for row in rows if "delivered" in row and row["round"] > 0]
    assert [(row["asked"], row["delivered"]) for row in totals] == [(3, 0), (3, 0)]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"clients": {"selection": "best-channel"}, "cell": "ideal"},
            "clients.selection: best-channel goes by links, and an ideal cell has none; use random "
            "or round-robin.",
        ),
        (
            {"clients": {"selection": "deadline-feasible"}},
            "clients.selection: deadline-feasible needs a deadline; set cell.deadline_s.",
        ),
        (
            {
                "clients": {"count": 20},
                "cell": {"allocation": "resource-blocks", "bandwidth_hz": 2e6},
            },
            "cell.allocation: 20 clients a round cannot share the 11 resource blocks of "
            "cell.bandwidth_hz; lower clients.per_round.",
        ),
        (
            {"cell": {"allocation": "min-energy"}},
            "cell: allocation min-energy lowers power as far as the deadline allows; set "
            "deadline_s.",
        ),
    ],
)
def test_what_cannot_go_together_is_said(values, sentence):
    with pytest.raises(UserError) as caught:
        Experiment(**values)
    assert str(caught.value) == sentence
