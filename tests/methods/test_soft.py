"""SOFT and its baselines: what is sent, what comes of it, and what the ledger says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.wire import decode, encode

PLAIN = {"name": "soft", "control": "none", "orthogonality": 0.0}


def uploads(rows):
    return [row for row in rows if row["row"] == "upload"]


def same(one, other, tolerance):
    return all(torch.allclose(one[n], other[n], atol=tolerance, rtol=0) for n in one)


@pytest.mark.parametrize("average", ["senders", "total"])
@pytest.mark.parametrize("send", ["delta", "value"])
def test_with_everything_kept_it_is_federated_averaging(execute, send, average):
    _, reference, _ = execute({"name": "fedavg"}, cell="ideal")
    _, soft, _ = execute(PLAIN | {"send": send, "average": average}, cell="ideal")
    assert same(reference.adapter, soft.adapter, 2e-6)


def test_topk_with_everything_kept_is_federated_averaging(execute):
    _, reference, _ = execute({"name": "fedavg"}, cell="ideal")
    _, topk, rows = execute({"name": "topk", "ratio": 1.0, "value_bits": 32}, cell="ideal")
    assert {row["notes"]["kept"] for row in uploads(rows)} == {1.0}
    assert same(reference.adapter, topk.adapter, 2e-6)


def test_flexlora_of_one_client_has_its_product(execute):
    """Of one client the mean product is its own, so only the factors may differ from averaging."""
    sgd = {"optimiser": "sgd", "rounds": 1, "clip_norm": None, "learning_rate": 0.5}
    parts, flex, _ = execute({"name": "flexlora"}, cell="ideal", train=sgd, clients={"count": 1})
    _, plain, _ = execute({"name": "fedavg"}, cell="ideal", train=sgd, clients={"count": 1})
    for matrix in parts.method.components.parts:
        a, b = matrix + ".lora_A.weight", matrix + ".lora_B.weight"
        product = flex.adapter[b] @ flex.adapter[a]
        assert torch.allclose(product, plain.adapter[b] @ plain.adapter[a], atol=1e-6)
        assert product.abs().max() > 0


@pytest.mark.parametrize("name", ["flexlora", "hetlora"])
def test_a_client_of_a_lower_rank_sends_and_pays_less(execute, name):
    _, progress, rows = execute({"name": name, "ranks": [4, 1]}, cell="ideal")
    bits = {row["client"]: row["bits"] for row in uploads(rows)}
    kept = {row["client"]: row["notes"]["kept"] for row in uploads(rows)}
    assert kept == {0: 1.0, 1: 0.25, 2: 1.0, 3: 0.25, 4: 1.0}
    assert bits[1] < bits[0]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in progress.adapter.values())


def test_a_quarter_kept_costs_a_quarter_of_the_factors(execute):
    _, _, rows = execute(PLAIN | {"kept_ratio": 0.25}, cell="ideal", model={"prototypes": 2})
    dense = uploads(execute(PLAIN, cell="ideal", model={"prototypes": 2})[2])[0]["bits"]
    for row in uploads(rows):
        assert row["notes"]["kept"] == 0.25
        assert 0.25 < row["bits"] / dense < 0.3  # the container's table is small but real
        assert 0.0 < row["notes"]["drop_error"] < 1.0


def test_frozen_a_leaves_no_covariance_and_trained_a_does(execute):
    def covariance(method):
        _, _, rows = execute(PLAIN | method, cell="ideal")
        rounds = [row for row in rows if row["row"] == "round" and row["round"] > 0]
        return [row["notes"]["covariance"] for row in rounds]

    assert max(covariance({})) > 1e-2  # in the first round only B has moved
    assert max(covariance({"train_a": False})) < 1e-6


def test_what_was_not_sent_is_owed_and_decays(execute):
    parts, _, _ = execute(PLAIN | {"kept_ratio": 0.25, "error_feedback": 0.5}, cell="ideal")
    for client in parts.clients.states:
        owed = parts.clients.states.get(client)["owed"]
        zero = torch.cat([(rows == 0).all(1) for rows in owed.values()])
        assert int(zero.sum()) == len(owed)  # one component of each matrix was sent


def test_the_ledger_tells_queue_kept_ratio_and_bandwidth_of_each_upload(execute):
    cell = {"preset": "urban-micro", "radius_m": 400, "power_dbm": 10, "bandwidth_hz": 5e5}
    method = {"name": "soft", "latency_s": 0.05}
    _, _, rows = execute(method, cell=cell)
    sent = [row for row in uploads(rows) if row["status"] == "delivered"]
    assert sent
    for row in sent:
        assert {"queue", "kept", "drop_error", "moved"} <= set(row["notes"])
        assert row["bandwidth_hz"] > 0
    # The scheduler decides, not an option.
    assert len({row["notes"]["kept"] for row in sent}) > 1


def test_orthogonality_makes_components_less_alike(execute):
    def coherence(weight):
        train = {"rounds": 4, "local_steps": 8}
        method = PLAIN | {"orthogonality": weight}
        parts, progress, _ = execute(method, cell="ideal", train=train)
        total = 0.0
        for matrix in parts.method.components.parts:
            a = torch.nn.functional.normalize(progress.adapter[matrix + ".lora_A.weight"])
            total += float((a @ a.mT).fill_diagonal_(0.0).square().sum())
        return total

    assert coherence(3.0) < 0.5 * coherence(0.0)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"v": 0}, "method.v"),
        ({"latency_s": -1}, "method.latency_s"),
        ({"kept_ratio": 0}, "method.kept_ratio"),
        ({"error_feedback": 1.5}, "method.error_feedback"),
    ],
)
def test_options_outside_of_their_range_are_refused(small, method, words):
    with pytest.raises(UserError, match=words):
        Experiment(**small(method={"name": "soft"} | method))


def test_a_budget_that_nobody_can_meet_is_refused_with_what_would_do(execute):
    with pytest.raises(UserError, match=r"any client needs of the 5 asked first .*Client \d+"):
        execute({"name": "soft", "latency_s": 1e-6})


def test_other_adapters_than_lora_are_refused(small):
    with pytest.raises(UserError, match="kind lora"):
        build(Experiment(**small(method={"name": "soft"}, adapter={"kind": "ia3", "rank": 4})))


def test_on_a_decoder_it_learns_too(execute):
    method = {"name": "soft", "kept_ratio": 0.5}
    _, _, rows = execute(method, task="causal", cell="ideal", train={"rounds": 6, "local_steps": 4})
    scores = [row["perplexity"] for row in rows if row["row"] == "round"]
    assert np.min(scores[1:]) < scores[0]


HUGE = [{"name": "fedex_lora"}, {"name": "flexlora"}, {"name": "lora_svd"}, PLAIN, {"name": "topk"}]


@pytest.mark.parametrize("method", HUGE, ids=lambda method: method["name"])
def test_finite_but_huge_numbers_are_refused_and_the_others_go_on(
    small, tmp_path, monkeypatch, method
):
    experiment = Experiment(**small(method=method, cell="ideal"))
    parts = build(experiment)
    exchange, shapes = parts.clients.exchange, parts.method.uplink_shapes()

    def corrupting(orders):
        replies = exchange(orders)
        payload = decode(replies[0].message, shapes)
        field = "slices" if hasattr(payload, "slices") else "values"
        huge = {name: torch.full_like(each, 3e38) for name, each in getattr(payload, field).items()}
        return [
            replace(replies[0], message=encode(replace(payload, **{field: huge}))),
            *replies[1:],
        ]

    monkeypatch.setattr(parts.clients, "exchange", corrupting)
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    statuses = {
        row["client"]: row["status"] for row in uploads(ledger.read(tmp_path / "ledger.jsonl"))
    }
    assert statuses == {
        0: "refused",
        1: "delivered",
        2: "delivered",
        3: "delivered",
        4: "delivered",
    }
    assert all(bool(torch.isfinite(tensor).all()) for tensor in progress.adapter.values())


@pytest.mark.parametrize("name", ["lora_svd", "topk", "hetlora", "soft"])
def test_who_sends_a_quarter_is_planned_with_a_quarter(execute, name):
    """A deadline that a dense upload would miss skips nobody whose message fits."""
    own = {"hetlora": {"ranks": [1]}, "soft": {"control": "none", "kept_ratio": 0.25}}
    cell = {"snr_db": [10, 10], "bandwidth_hz": 1e6, "packet_error": 0.0, "deadline_s": 0.055}
    _, _, rows = execute({"name": name} | own.get(name, {}), cell=cell)
    assert {row["status"] for row in uploads(rows)} == {"delivered"}
    _, _, rows = execute({"name": "fedavg"}, cell=cell)
    assert "skipped" in {row["status"] for row in uploads(rows)}


def test_components_that_nobody_sent_can_still_learn(execute):
    clients = {"count": 2, "per_round": 1}
    parts, progress, _ = execute({"name": "flexlora", "ranks": [1]}, cell="ideal", clients=clients)
    for matrix in parts.method.components.parts:
        assert bool((progress.adapter[matrix + ".lora_A.weight"].norm(dim=1) > 0).all())


@pytest.mark.parametrize("name", ["topk", "ffa_lora", "lora_svd"])
def test_methods_of_lora_refuse_other_kinds(small, name):
    with pytest.raises(UserError, match="kind lora"):
        build(Experiment(**small(method={"name": name}, adapter={"kind": "ia3", "rank": 4})))


def test_no_ranks_at_all_are_refused(small):
    with pytest.raises(UserError, match=r"method\.ranks"):
        Experiment(**small(method={"name": "flexlora", "ranks": []}))


def test_the_ledger_tells_how_much_of_the_change_the_best_components_hold(
    small, tmp_path, monkeypatch
):
    experiment = Experiment(**small(method=PLAIN, cell="ideal", train={"rounds": 1}))
    parts = build(experiment)
    method, expected = parts.method, {}
    upload = method.upload

    def watching(client, grant):
        best = np.zeros(4)
        before, after = method.started(client), client.adapter
        for matrix in method.components.parts:
            squares = []
            for i in range(4):
                each = [
                    np.outer(
                        made[matrix + ".lora_B.weight"][:, i], made[matrix + ".lora_A.weight"][i]
                    ).astype(float)
                    for made in (after, before)
                ]
                squares.append(((each[0] - each[1]) ** 2).sum())
            best += np.sort(squares)[::-1]
        shares = best.cumsum() / best.sum()
        expected[client.index] = {
            "top_eighth": 0.5 * shares[0],  # half of a piece: a rank of four has no eighth
            "top_quarter": shares[0],
            "top_half": shares[1],
            "top_three_quarters": shares[2],
        }
        return upload(client, grant)

    monkeypatch.setattr(method, "upload", watching)
    list(session(parts, experiment, tmp_path).rounds())
    found = uploads(ledger.read(tmp_path / "ledger.jsonl"))
    assert len(found) == len(expected) == 5
    for row in found:
        for name, share in expected[row["client"]].items():
            assert row["notes"][name] == pytest.approx(share, rel=1e-4), name
