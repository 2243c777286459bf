"""Coded SOFT: what is sent and owed, what the scheduler hears, and few bits in plain SOFT."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.methods.soft_coded import normal_bits
from airtune.wire import decode, encode

WEAK = {"preset": "urban-micro", "radius_m": 400, "power_dbm": 10, "bandwidth_hz": 5e5}
ALONE = {"clients": {"count": 1}, "train": {"rounds": 1}, "cell": "ideal"}


@pytest.fixture
def execute(execute):
    def run(method, **sections):
        parts, progress, rows = execute(method, **sections)
        return parts, progress, [row for row in rows if row["row"] == "upload"]

    return run


def test_what_is_sent_and_what_is_owed_are_together_what_was_learned(execute):
    _, dense, _ = execute({"name": "fedavg"}, **ALONE)
    parts, coded, rows = execute({"name": "soft_coded", "error_feedback": 1.0}, **ALONE)
    owed = parts.method.components.tensors(parts.clients.states.get(0)["owed"])
    assert 0.0 < rows[0]["notes"]["kept"] <= 0.14
    for name, tensor in coded.adapter.items():
        assert torch.allclose(tensor + owed.get(name, 0.0), dense.adapter[name], atol=1e-6)
    assert max(float(each.abs().max()) for each in owed.values()) > 0


def test_with_nearly_everything_sent_it_is_federated_averaging(execute):
    train = {"rounds": 2, "local_steps": 4}
    parts, dense, _ = execute({"name": "fedavg"}, cell="ideal", train=train)
    _, coded, rows = execute({"name": "soft_coded", "kept_ratio": 0.9}, cell="ideal", train=train)
    for name, tensor in coded.adapter.items():
        moved = float((dense.adapter[name] - parts.method.setup.initial[name]).norm())
        assert float((tensor - dense.adapter[name]).norm()) <= 0.25 * moved + 1e-6
    assert all(row["notes"]["drop_error"] < 0.1 for row in rows)


def test_a_message_fills_its_grant_and_never_exceeds_it(execute, small, tmp_path):
    method = {"name": "soft_coded", "latency_s": 0.06, "control": "limit"}
    adapter = {"rank": 16}
    # Repeats of whole packets would leave nothing of so short a budget.
    cell = WEAK | {"bandwidth_hz": 2e5, "packet_error": 0.0}
    parts, _, rows = execute(method, cell=cell, adapter=adapter)
    sent = [row for row in rows if row["status"] == "delivered"]
    assert sent
    kept = {row["notes"]["kept"] for row in sent}
    assert len(kept) > 1 and max(kept) <= 0.14
    assert all(row["bits"] <= row["granted_bits"] for row in sent)
    cut = [row for row in sent if row["notes"]["kept"] < 0.9 * max(kept)]
    counts = parts.method._counts
    fixed = parts.method.fixed_bits
    for row in cut:  # one step more of the ladder would not have fitted, about
        ratio = counts[0] / counts[1]
        assert fixed + ratio * 1.3 * (row["bits"] - fixed) + 400 > row["granted_bits"]


def test_scores_say_how_much_error_each_further_piece_takes_off(execute):
    parts, _, _ = execute({"name": "soft_coded", "kept_ratio": 0.5}, **ALONE)
    method = parts.method
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(method._numbers, generator=draw)
    order = flat.abs().argsort(descending=True)
    falls = method._weighed(flat, order).numpy()
    assert falls.shape == (16,) and (falls >= -1e-12).all()
    assert falls[0] > 2 * falls[-1]  # steep, unlike the norms of components
    # All pieces together are the most that may stay: a grid of half of the numbers.
    sizes, total = np.sort(np.abs(flat.numpy()))[::-1], float((flat**2).sum())
    half = len(sizes) // 2
    step = 2 * sizes[half - 1]
    levels = np.maximum(np.round(sizes[:half] / step), 1)
    offset = (levels * step - sizes[:half]).mean()
    left = ((levels * step - offset - sizes[:half]) ** 2).sum() + (sizes[half:] ** 2).sum()
    assert falls.sum() == pytest.approx(1 - left / total, abs=0.02)


@pytest.mark.parametrize("share", [0.02, 0.14, 0.5, 0.9])
def test_the_size_that_is_planned_with_is_that_of_normal_numbers(share):
    numbers = np.abs(np.random.default_rng(0).standard_normal(400_000))
    step = 2 * np.sort(numbers)[-int(share * len(numbers))]
    sizes, counts = np.unique(np.round(numbers / step), return_counts=True)
    entropy = -(counts * np.log2(counts / len(numbers))).sum() + counts[sizes > 0].sum()
    assert normal_bits(share) == pytest.approx(entropy / len(numbers), rel=0.01)


def test_under_a_latency_scheduler_it_keeps_to_the_budget(execute):
    method = {"name": "soft_coded", "latency_s": 0.08}
    _, _, rows = execute(method, cell=WEAK, train={"rounds": 8}, adapter={"rank": 16})
    sent = [row for row in rows if row["status"] == "delivered"]
    assert {"queue", "kept", "drop_error"} <= set(sent[0]["notes"])
    seconds = {}
    for row in sent:
        seconds.setdefault(row["client"], []).append(row["compute_seconds"] + row["seconds"])
    assert max(np.mean(each) for each in seconds.values()) <= 0.08 * (1 + 1 / np.sqrt(8))


def test_a_head_travels_whole(execute):
    _, _, with_head = execute({"name": "soft_coded"}, cell="ideal")
    private = {"name": "soft_coded", "private": ["classifier.*"]}
    parts, _, without = execute(private, cell="ideal")
    head = sum(t.numel() for n, t in parts.method.setup.initial.items() if "classifier" in n)
    saved = with_head[0]["bits"] - without[0]["bits"]
    assert 32 * head < saved < 32 * head + 1500


@pytest.mark.parametrize("kept_ratio", [0.9, 0.14, 0.01, 1e-4])
@pytest.mark.parametrize("rank", [1, 4])
def test_what_the_scheduler_counts_on_carries_something(execute, rank, kept_ratio):
    method = {"name": "soft_coded", "kept_ratio": kept_ratio, "private": ["classifier.*"]}
    _, _, rows = execute(method, adapter={"rank": rank}, train={"local_steps": 1})
    assert all(row["status"] == "delivered" for row in rows)
    # In the first round the head is zero, and so are all gradients before it; after one step of
    # Adam half of the numbers are zero, the others all alike.
    rows = [row for row in rows if row["round"] > 1]
    assert all(0.0 < row["notes"]["kept"] <= max(kept_ratio, 0.01) for row in rows)
    assert all(row["notes"]["drop_error"] < 1.0 for row in rows)


def test_scores_of_sparse_and_of_equal_changes_are_finite_parts_of_one(execute):
    parts, _, _ = execute({"name": "soft_coded", "kept_ratio": 0.9}, **ALONE)
    method = parts.method
    for flat in (torch.full((method._numbers,), 0.01), torch.zeros(method._numbers)):
        flat[method._numbers // 2 :] = 0.0
        order = flat.abs().argsort(descending=True, stable=True)
        falls = method._weighed(flat, order)
        assert bool(torch.isfinite(falls).all()) and float(falls.min()) >= 0.0
        assert 0.0 <= float(falls.sum()) <= 1.0 + 1e-9


def test_sixteen_bits_stay_finite_whatever_a_client_sends(small, tmp_path, monkeypatch):
    """A number that float32 carries up and float16 does not carry down is refused."""
    method = {"name": "soft_coded", "value_bits": 16, "private": ["classifier.*"]}
    experiment = Experiment(**small(method=method, cell="ideal"))
    parts = build(experiment)
    exchange, shapes = parts.clients.exchange, parts.method.uplink_shapes()

    def corrupting(orders):
        replies = exchange(orders)
        payload = decode(replies[0].message, shapes)
        huge = replace(payload, grid=replace(payload.grid, step=9e4))
        return [replace(replies[0], message=encode(huge)), *replies[1:]]

    monkeypatch.setattr(parts.clients, "exchange", corrupting)
    list(session(parts, experiment, tmp_path).rounds())
    rows = [r for r in ledger.read(tmp_path / "ledger.jsonl") if r["row"] == "upload"]
    assert {row["status"] for row in rows if row["client"] == 0} == {"refused"}
    assert {row["status"] for row in rows if row["client"] != 0} == {"delivered"}


# Few bits in SOFT itself, and its score of gradients.


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_slices_of_few_bits_cost_little_and_their_rounding_is_owed(execute, bits):
    method = {"name": "soft", "control": "none", "orthogonality": 0.0, "error_feedback": 1.0}
    _, dense, full = execute(method, **ALONE)
    parts, coarse, few = execute(method | {"value_bits": bits}, **ALONE)
    assert few[0]["bits"] < full[0]["bits"]
    owed = parts.method.components.tensors(parts.clients.states.get(0)["owed"])
    assert max(float(each.abs().max()) for each in owed.values()) > 0
    for name, tensor in coarse.adapter.items():
        if name in owed:
            # With 16 bits what goes down is rounded too, and training starts elsewhere.
            tolerance = 1e-6 if bits < 16 else 1e-3
            assert torch.allclose(tensor + owed[name], dense.adapter[name], atol=tolerance)


def test_fisher_s_score_is_of_the_gradients_that_adam_saw(small, tmp_path):
    experiment = Experiment(**small(method={"name": "soft", "score": "fisher"}, **ALONE))
    parts = build(experiment)
    method, seen = parts.method, []
    score = method.scores

    def scores(client, learned, started):
        found = score(client, learned, started)
        seen.append((dict(client.moments), learned, started, found))
        return found

    method.scores = scores
    list(session(parts, experiment, tmp_path).rounds())
    moments, learned, started, found = seen[0]
    names = parts.method.components.parts
    expected = []
    for matrix in names:
        for i in range(method.components.rank):
            total = 0.0
            for side in ("A", "B"):
                name = f"{matrix}.lora_{side}.weight"
                square = moments[name][1].view_as(learned[name])
                part = (square * (learned[name] - started[name]) ** 2).numpy()
                total += (part[i] if side == "A" else part[:, i]).sum()
            expected.append(np.sqrt(total))
    assert max(expected) > 0
    assert np.allclose(found.numpy(), expected, rtol=1e-4)


def test_fisher_s_score_needs_adam(small):
    values = small(method={"name": "soft", "score": "fisher"}, train={"optimiser": "sgd"})
    with pytest.raises(UserError, match=r"method\.score: fisher"):
        build(Experiment(**values))


def test_every_upload_is_read_as_it_was_meant(small, tmp_path, monkeypatch):
    experiment = Experiment(**small(method={"name": "soft_coded"}, cell="ideal"))
    parts = build(experiment)
    exchange, shapes, found = parts.clients.exchange, parts.method.uplink_shapes(), []

    def listening(orders):
        replies = exchange(orders)
        found.extend(decode(reply.message, shapes) for reply in replies)
        return replies

    monkeypatch.setattr(parts.clients, "exchange", listening)
    list(session(parts, experiment, tmp_path).rounds())
    assert len(found) == 15
    most = 0.14 * sum(each.numel() for each in found[0].levels.values())
    assert all(0 < sum(int((e != 0).sum()) for e in f.levels.values()) <= most for f in found)
