"""One round's bill, added up by hand from what crossed and what the links were."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.methods import Work
from airtune.radio.cell import Cell


def execute(values, folder):
    experiment = Experiment(**values)
    parts = build(experiment)
    list(session(parts, experiment, folder).rounds())
    rows = ledger.read(folder / "ledger.jsonl")
    return experiment, parts, {k: [r for r in rows if r["row"] == k] for k in
                               ("broadcast", "upload", "round")}  # fmt: skip


def test_seconds_and_joules_add_up_by_hand(small, tmp_path):
    cell = {"packet_error": 0.0, "allocation": "equal", "bandwidth_hz": 5e6, "devices": "laptop"}
    experiment, parts, rows = execute(small(cell=cell, train={"rounds": 1}), tmp_path)
    links = Cell(experiment.cell, 5, 0).links(1)
    noise_hz = 10 ** ((-174 + 5 - 30) / 10)
    power = 10 ** ((23 - 30) / 10)
    finish, joules = [], 0.0
    for row in rows["upload"]:
        snr_hz = power * links.gain[row["client"]] / noise_hz
        width = min(1e6, snr_hz / 10**-0.5)
        rate = width * min(5.55, math.log2(1 + snr_hz / width / 10**0.2))
        assert row["rate_bps"] == pytest.approx(rate, rel=1e-9)
        assert row["seconds"] == pytest.approx(row["bits"] / rate, rel=1e-9)
        assert row["snr_db"] == pytest.approx(10 * math.log10(snr_hz / 1e6))
        # Two steps of eight texts, padded as the client padded them: 4 FLOPs per weight and token.
        tokens = row["compute_seconds"] * (1e13 * 0.3) / (4 * parts.backbone.active_parameters)
        assert tokens == pytest.approx(round(tokens))
        assert 2 * 8 * 8 <= tokens <= 2 * 8 * 64
        assert row["compute_joules"] == pytest.approx(40.0 * row["compute_seconds"])
        assert row["joules"] == pytest.approx((power + 0.1) * row["seconds"])
        finish.append(row["compute_seconds"] + row["seconds"])
        joules += row["joules"] + row["compute_joules"]
    (cast,) = rows["broadcast"]
    down_hz = 10 ** ((33 - 30) / 10) * links.gain.min() / 10 ** ((-174 + 9 - 30) / 10)
    width = min(5e6, down_hz / 10**-0.5)
    rate = width * min(5.55, math.log2(1 + down_hz / width / 10**0.2))
    assert cast["seconds"] == pytest.approx(cast["bits"] / rate)
    assert cast["joules"] == pytest.approx(5 * 0.2 * cast["seconds"])
    total = rows["round"][1]
    assert total["seconds"] == pytest.approx(cast["seconds"] + max(finish))
    assert total["joules"] == pytest.approx(joules + cast["joules"])
    assert total["train_loss"] == pytest.approx(np.mean([row["loss"] for row in rows["upload"]]))


def test_the_ledgers_snr_is_that_of_the_part_of_the_share_that_is_filled(small, tmp_path):
    """Power that would be thinner than -5 dB fills a part of the share, at -5 dB."""
    cell = {"allocation": "equal", "bandwidth_hz": 200e6, "power_dbm": 10.0}
    experiment, _, rows = execute(small(cell=cell, train={"rounds": 1}), tmp_path)
    links = Cell(experiment.cell, 5, 0).links(1)
    over_share = {
        row["client"]: 10 * math.log10(links.snr_hz[row["client"]] / 40e6)
        for row in rows["upload"]
        if row["snr_db"] is not None
    }
    assert min(over_share.values()) < -8.0 and max(over_share.values()) > 0.0
    for row in rows["upload"]:
        if row["client"] in over_share:
            assert row["snr_db"] == pytest.approx(max(over_share[row["client"]], -5.0))


def test_the_ideal_cell_costs_computing_only(small, tmp_path):
    _, _, rows = execute(small(cell="ideal", train={"rounds": 1}), tmp_path)
    assert all(row["seconds"] == row["joules"] == 0 for row in rows["upload"])
    total = rows["round"][1]
    assert total["seconds"] == pytest.approx(max(r["compute_seconds"] for r in rows["upload"]))
    assert total["uplink_bits"] > 0
    assert rows["upload"][0]["snr_db"] is None


def test_what_misses_the_deadline_is_late_and_the_round_ends_there(small, tmp_path, monkeypatch):
    # Planning believes that training is free, so the compute-bound clients come late.
    values = small(
        cell={
            "deadline_s": 0.05,
            "packet_error": 0.0,
            "devices": ["edge-gpu", {"name": "slow", "peak_flops": 1e8, "power_w": 1.0}],
        },
        train={"rounds": 1},
    )
    monkeypatch.setattr("airtune.build.PlannedSeconds", lambda *_: lambda who, work: 0.0 * who)
    _, _, rows = execute(values, tmp_path)
    status = {row["client"]: row["status"] for row in rows["upload"]}
    assert status == {0: "delivered", 1: "late", 2: "delivered", 3: "late", 4: "delivered"}
    total, cast = rows["round"][1], rows["broadcast"][0]
    assert total["seconds"] == pytest.approx(cast["seconds"] + 0.05)
    assert total["delivered"] == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_server_that_waits_uses_what_is_late_and_says_how_late(
    small, tmp_path, monkeypatch, seed
):
    """The same clients as above: the slow ones compute for longer than the deadline."""
    slow = {"name": "slow", "peak_flops": 1e8, "power_w": 1.0}
    rows = {}
    monkeypatch.setattr("airtune.build.PlannedSeconds", lambda *_: lambda who, work: 0.0 * who)
    for late in ("drop", "wait"):
        (tmp_path / late).mkdir()
        cell = {"deadline_s": 0.05, "late": late, "devices": ["edge-gpu", slow]}
        values = small(cell=cell, train={"rounds": 1}, seed=seed)
        _, _, rows[late] = execute(values, tmp_path / late)
    ends, (cast,) = [], rows["wait"]["broadcast"]
    for row, dropped in zip(rows["wait"]["upload"], rows["drop"]["upload"], strict=True):
        took = row["compute_seconds"] + row["seconds"]
        assert row["status"] == "delivered"
        assert row["arrived_s"] == pytest.approx(cast["seconds"] + took)
        assert (took > 0.05) == (dropped["status"] == "late") == (row["client"] % 2 == 1)
        if took > 0.05:
            assert row["reason"] == f"came {took - 0.05:.3g} s after the deadline"
        else:
            assert row["reason"] is None
        # Waiting changes nothing of what was planned or sent.
        same = ("granted_bits", "rate_bps", "bits", "seconds", "joules", "transmissions")
        assert [row[key] for key in same] == [dropped[key] for key in same]
        ends.append(took)
    total = rows["wait"]["round"][1]
    assert total["seconds"] == pytest.approx(cast["seconds"] + max(ends))
    assert (total["delivered"], rows["drop"]["round"][1]["delivered"]) == (5, 3)


def test_a_round_over_own_blocks_is_charged_what_they_carry(small, tmp_path):
    cell = {"delay_spread_ns": 300, "allocation": "best-blocks", "packet_error": 0.0,
            "bandwidth_hz": 2e6, "link_layer": "acknowledged", "max_transmissions": 1}  # fmt: skip
    experiment, _, rows = execute(small(cell=cell, train={"rounds": 1}), tmp_path)
    links, blocks_hz = Cell(experiment.cell, 5, 0).links(1), 180e3
    widths = [row["bandwidth_hz"] / blocks_hz for row in rows["upload"]]
    assert widths == pytest.approx(np.round(widths)) and sum(widths) <= 11
    best = links.block_snr_hz(np.arange(5)).max(1)
    for row, width in zip(rows["upload"], widths, strict=True):
        assert row["status"] == "delivered"
        assert row["seconds"] == pytest.approx(row["bits"] / row["rate_bps"])
        snr = 10 ** (row["snr_db"] / 10)
        assert snr <= best[row["client"]] / (width * blocks_hz) * (1 + 1e-9)
        efficiency = min(5.55, math.log2(1 + snr / 10**0.2))
        assert row["rate_bps"] == pytest.approx(efficiency * width * blocks_hz, rel=1e-9)


def test_a_round_in_which_nobody_can_be_reached_is_a_recorded_fact(small, tmp_path):
    cell = {"preset": "urban-macro", "power_dbm": -40, "radius_m": 5000, "min_distance_m": 4000}
    _, _, rows = execute(small(cell=cell, train={"rounds": 2}), tmp_path)
    assert {row["status"] for row in rows["upload"]} == {"skipped"}
    assert {row["reason"] for row in rows["upload"]} == {"outage"}
    assert rows["broadcast"] == []
    for total in rows["round"][1:]:
        assert (total["delivered"], total["asked"], total["uplink_bits"]) == (0, 5, 0)
        assert total["accuracy"] == rows["round"][0]["accuracy"]


def test_a_weak_broadcast_is_missed_by_those_out_of_its_reach(small, tmp_path):
    cell = {"base_station_power_dbm": -8, "power_dbm": 30}
    _, _, rows = execute(small(cell=cell, train={"rounds": 2}), tmp_path)
    statuses = [row["status"] for row in rows["upload"]]
    assert {"missed", "delivered"} == set(statuses)
    heard = sum(row["heard"] for row in rows["broadcast"])
    assert heard == statuses.count("delivered")


def test_averaging_weighs_clients_by_their_examples(small, tmp_path):
    """After one SGD step the weighted mean equals the step of the pooled gradient."""
    values = small(
        cell="ideal",
        clients={"partition": "quantity", "alpha": 1.0, "count": 3, "test_fraction": 0},
        train={"rounds": 1, "local_steps": 1, "batch_size": 1000, "optimiser": "sgd",
               "clip_norm": None, "learning_rate": 0.1},
    )  # fmt: skip
    experiment = Experiment(**values)
    parts = build(experiment)
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    pooled = Experiment(**{**values, "clients": {**values["clients"], "count": 1}})
    alone = build(pooled)
    whole = session(alone, pooled, tmp_path / "one") if (tmp_path / "one").mkdir() is None else None
    list(whole.rounds())
    for name, tensor in whole.adapter.items():
        assert tensor.allclose(progress.adapter[name], atol=1e-6), name


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_a_rounds_gradient_norm_weighs_clients_by_their_examples(small, tmp_path, clip_norm):
    clients = {"partition": "quantity", "alpha": 1.0, "count": 3, "test_fraction": 0}
    train = {"rounds": 1, "clip_norm": clip_norm}
    _, parts, rows = execute(small(cell="ideal", clients=clients, train=train), tmp_path)
    sizes = [len(parts.clients.data[row["client"]]) for row in rows["upload"]]
    norms = [row["gradient_norm"] for row in rows["upload"]]
    assert len(set(sizes)) == 3 and min(norms) > 0.1
    untrained, trained = rows["round"]
    assert untrained["gradient_norm"] is None
    assert trained["gradient_norm"] == pytest.approx(np.dot(sizes, norms) / sum(sizes))


def test_planned_computing_counts_the_padding_that_is_charged(small, tmp_path):
    """Grants rest on planned seconds: without padding they would be a fifth short or more."""
    _, parts, rows = execute(small(train={"rounds": 6, "local_steps": 4}), tmp_path)
    charged = np.zeros(5)
    for row in rows["upload"]:
        charged[row["client"]] += row["compute_seconds"] / 6
    assert parts.method.setup.compute_seconds(np.arange(5), Work(4)) == pytest.approx(
        charged, rel=0.15
    )


def test_personal_accuracy_is_measured_of_as_many_clients_as_asked_for(small, tmp_path):
    measured = {}
    for tested in (2, 200):
        experiment = Experiment(**small(clients={"tested": tested}))
        folder = tmp_path / str(tested)
        folder.mkdir()
        progress = session(build(experiment), experiment, folder)
        *_, last = progress.rounds()
        measured[tested] = progress.personal
        own = [scores["accuracy"] for scores in progress.personal.values()]
        assert last.personal_accuracy == pytest.approx(np.mean(own))
    assert set(measured[200]) == set(range(5))
    assert len(measured[2]) == 2
    assert measured[2].items() < measured[200].items()


def test_data_that_phases_make_is_charged_and_known_to_the_method(small, tmp_path, monkeypatch):
    """Tokens that went through the model to make it cost time; notes reach the upload."""
    from airtune.learning.phase import Made
    from airtune.methods.fedavg import FedAvg

    plain_phases, plain_upload, seen = FedAvg.phases, FedAvg.upload, {}

    def own_texts(model, drafts):
        del model
        return [Made(draft.data, 1000, {"seen": float(draft.index)}) for draft in drafts]

    def phases(self, client):
        (phase,) = plain_phases(self, client)
        return [dataclasses.replace(phase, maker=own_texts)] * 2

    def upload(self, client, grant):
        seen[client.index] = [dict(notes) for notes in client.made], client.predicted_tokens
        return plain_upload(self, client, grant)

    rows = {}
    for made in (False, True):
        folder = tmp_path / str(made)
        folder.mkdir()
        if made:
            monkeypatch.setattr(FedAvg, "phases", phases)
            monkeypatch.setattr(FedAvg, "upload", upload)
        else:
            monkeypatch.setattr(FedAvg, "phases", lambda self, c: plain_phases(self, c) * 2)
        experiment = Experiment(**small(train={"rounds": 1}))
        list(session(build(experiment), experiment, folder).rounds())
        rows[made] = [r for r in ledger.read(folder / "ledger.jsonl") if r["row"] == "upload"]
    assert seen == {client: ([{"seen": 0.0}, {"seen": 1.0}], 2000) for client in range(5)}
    for without, with_made in zip(rows[False], rows[True], strict=True):
        assert without["loss"] == with_made["loss"]  # the same texts, so the same training
        assert with_made["compute_seconds"] > without["compute_seconds"]
