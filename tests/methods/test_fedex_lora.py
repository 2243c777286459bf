"""FedEx-LoRA and the same repair in SOFT, against dense algebra in NumPy."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, ModernBertModel

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.low_rank import factors
from airtune.learning.shifts import shift_name, shifts
from airtune.methods.views import Client, Delivery
from airtune.radio.grant import Grant
from airtune.wire import decode, encode

FEDEX = {"name": "fedex_lora"}
SOFT = {"name": "soft", "control": "none", "orthogonality": 0.0, "residual": True}


@pytest.fixture
def started(small):
    """Function that builds an experiment and returns (method, state, parts)."""

    def start(method, **sections):
        parts = build(Experiment(**small(method=method, cell="ideal", **sections)))
        return parts.method, parts.method.start(), parts

    return start


@pytest.fixture
def execute(execute):
    def run(method, **sections):
        return execute(method, **{"cell": "ideal"} | sections)

    return run


def heard(parts, state, index):
    """What a client has of a broadcast that went over the wire."""
    message = encode(parts.method.broadcast(state, None))
    payload = parts.clients._decode(message)
    learner = parts.learner
    initial = dict(parts.model.initial)
    client = Client(
        index, 1, parts.clients.data[index], initial, parts.learner, learner, heard=payload
    )
    parts.method.receive(client, payload)
    return client, payload, message


def one_round(parts, state, seed, weights=(0.5, 0.3, 0.2), lost=()):
    """Let clients learn something random and the server combine it: (state, their adapters)."""
    method, deliveries, learned = parts.method, [], []
    for index, weight in enumerate(weights):
        client, _, _ = heard(parts, state, index)
        draw = torch.Generator().manual_seed(100 * seed + index)
        client.adapter = {
            name: tensor if name.endswith(".shift") else
            tensor + 0.3 * torch.randn(tensor.shape, generator=draw)
            for name, tensor in client.adapter.items()
        }  # fmt: skip
        grant = Grant(index, 1e9, 0.2, 1e6, 1e6)
        message = encode(method.upload(client, grant))
        payload = method.accept(state, decode(message, method.uplink_shapes()))
        learned.append(client.adapter)
        if index in lost:
            payload = None
        deliveries.append(Delivery(index, payload, weight, grant, 1.0, 1.0))
    return method.aggregate(state, deliveries), learned


def dense(parts, adapter, matrix, scale=4.0):
    """What is added to W0 of a matrix: alpha / r = 16 / 4."""
    a, b = factors(adapter, matrix)
    product = scale * b.numpy().astype(float) @ a.numpy().astype(float)
    shift = shifts(adapter).get(matrix)
    return product if shift is None else product + shift.numpy()


def weight_of(parts, matrix):
    return parts.backbone.module.get_submodule(matrix).weight.detach().numpy().astype(float)


@pytest.mark.parametrize(
    ("method", "lost"),
    [
        (FEDEX, ()),
        (FEDEX, (1,)),
        (SOFT, ()),
        (SOFT, (1,)),
        (SOFT | {"send": "value", "average": "total"}, (1,)),
        (SOFT | {"send": "delta", "average": "total"}, ()),
    ],
)
def test_the_model_is_the_mean_of_the_clients_models(started, method, lost):
    """W0 + shift + scale B A = W0 + scale sum_n p_n B_n A_n, in every of three rounds."""
    _, state, parts = started(method)
    weights = np.array([0.5, 0.3, 0.2])
    weights[list(lost)] = 0.0
    for number in range(3):
        before = parts.method.model(state)
        state, learned = one_round(parts, state, number, lost=lost)
        model = parts.method.model(state)
        for matrix in parts.method.components.parts:
            base = weight_of(parts, matrix)
            each = [base + dense(parts, adapter, matrix) for adapter in learned]
            mean = sum(w * own for w, own in zip(weights / weights.sum(), each, strict=True))
            got = base + dense(parts, model, matrix)
            assert np.abs(got - mean).max() < 2e-6 * max(1.0, np.abs(mean).max())
            # It has learned something, which the product of means alone does not have.
            assert np.abs(got - base - dense(parts, before, matrix)).max() > 0.1
            plain = {n: t for n, t in model.items() if not n.endswith(".shift")}
            assert np.abs(dense(parts, model, matrix) - dense(parts, plain, matrix)).max() > 1e-2


def test_a_lost_client_of_soft_counts_as_one_who_changed_nothing(started):
    method = SOFT | {"send": "delta", "average": "total"}
    _, state, parts = started(method)
    old = parts.method.model(state)
    state, learned = one_round(parts, state, 0, lost=(1,))
    model = parts.method.model(state)
    for matrix in parts.method.components.parts:
        each = [dense(parts, adapter, matrix) for adapter in learned]
        each[1] = dense(parts, old, matrix)
        mean = sum(w * own for w, own in zip((0.5, 0.3, 0.2), each, strict=True))
        assert np.abs(dense(parts, model, matrix) - mean).max() < 1e-5


def test_the_residual_is_separate_averaging_s_and_soft_s_is_the_same(started):
    """Both repairs, and plain averaging with the residual formed in full here."""
    found = {}
    for method in (FEDEX, SOFT):
        _, state, parts = started(method)
        state, learned = one_round(parts, state, 0)
        found[method["name"]] = parts.method.model(state)
    for matrix in parts.method.components.parts:
        a, b = ([factors(own, matrix)[k].numpy().astype(float) for own in learned] for k in (0, 1))
        p = np.array([0.5, 0.3, 0.2])
        mean_a, mean_b = np.tensordot(p, a, 1), np.tensordot(p, b, 1)
        residual = 4.0 * (sum(w * y @ x for w, x, y in zip(p, a, b, strict=True)) - mean_b @ mean_a)
        for model in found.values():
            got_a, got_b = factors(model, matrix)
            assert got_a.numpy() == pytest.approx(mean_a, abs=1e-6)
            assert got_b.numpy() == pytest.approx(mean_b, abs=1e-6)
            assert shifts(model)[matrix].numpy() == pytest.approx(residual, abs=1e-5)


def test_the_residual_travels_dense_and_is_paid_for(execute):
    parts, _, rows = execute(FEDEX)
    plain = execute({"name": "fedavg"})[2]
    cost, reference = (
        {row["round"]: row["bits"] for row in found if row["row"] == "broadcast"}
        for found in (rows, plain)
    )
    numbers = sum(d_in * d_out for d_in, d_out in parts.method.components.parts.values())
    assert numbers == 2 * 2 * 32 * 32  # query and value of two layers of width 32
    assert cost[1] == reference[1]  # nothing has been left out yet
    for number in (2, 3):
        more = cost[number] - reference[number] - 32 * numbers
        assert 0 < more < 8 * 100 * len(parts.method.components.parts)  # names and shapes


@pytest.mark.parametrize(("repaired", "value_bits"), [(FEDEX, 32), (FEDEX, 16), (SOFT, 32)])
def test_of_a_lower_rank_the_best_factors_of_the_sum_go_down(started, repaired, value_bits):
    method = repaired | {"residual_rank": 3, "value_bits": value_bits}
    _, state, parts = started(method)
    _, _, empty = heard(parts, state, 0)
    for number in range(2):
        state, _ = one_round(parts, state, number)
    client, payload, message = heard(parts, state, 0)
    width = sum(d_in + d_out for d_in, d_out in parts.method.components.parts.values())
    more = 8 * (len(message) - len(empty)) - value_bits * 3 * width
    assert 0 < more < 2 * 8 * 100 * len(parts.method.components.parts)
    tolerance = 1e-5 if value_bits == 32 else 5e-3
    model = parts.method.model(state)
    for matrix in parts.method.components.parts:
        whole = state["residual"][matrix].numpy().astype(float)
        u, values, v = np.linalg.svd(whole)
        assert values[3] > 1e-2  # so something is cut
        best = u[:, :3] * values[:3] @ v[:3]
        assert shifts(model)[matrix].numpy() == pytest.approx(best, abs=1e-5)
        assert shifts(client.adapter)[matrix].numpy() == pytest.approx(best, abs=tolerance)
    assert not any("shift_" in name for name in [*client.adapter, *model])
    again = {name: tensor for name, tensor in client.adapter.items() if name.endswith(".shift")}
    for index in (1, 2):
        other = Client(
            index, 1, client.data, dict(parts.model.initial), client.public, client.learner
        )
        parts.method.receive(other, payload)
        # The same tensors, or clients could not share a pass.
        assert all(other.adapter[name] is tensor for name, tensor in again.items())


def test_clients_share_passes_and_send_no_shift(execute, monkeypatch):
    from airtune.learning.learner import Learner

    cohorts = []
    train = Learner._train_cohort

    def noting(self, cohort):
        cohorts.append(len(cohort))
        train(self, cohort)
        assert all(shifts(t.adapter) or t.round == 1 for t in cohort)

    monkeypatch.setattr(Learner, "_train_cohort", noting)
    for method in (FEDEX | {"residual_rank": 2}, FEDEX | {"private": ["classifier.*"]}):
        cohorts.clear()
        parts, _, _ = execute(method, machine={"cohort": 5}, train={"batch_size": 2})
        assert cohorts == [5, 5, 5]
        assert not any("shift" in name for name in parts.method.uplink_shapes())
        for client in parts.clients.states:
            kept = parts.clients.states.get(client).get("private", {})
            assert kept.keys() == {"classifier.weight", "classifier.bias"}


def test_of_one_client_nothing_is_left_out(execute):
    parts, progress, _ = execute(FEDEX, clients={"count": 1})
    _, plain, _ = execute({"name": "fedavg"}, clients={"count": 1})
    for name, tensor in plain.adapter.items():
        assert torch.allclose(progress.adapter[name], tensor, atol=1e-5), name
    for matrix in parts.method.components.parts:
        assert progress.adapter[shift_name(matrix)].abs().max() < 1e-6


def test_the_ledger_tells_the_covariance_of_each_round_as_before(execute):
    """In the first round all start alike, so what it says does not depend on the repair."""
    notes = []
    for method in (SOFT, SOFT | {"residual": False}, FEDEX):
        _, _, rows = execute(method)
        notes.append([row["notes"] for row in rows if row["row"] == "round" and row["round"] > 0])
    assert notes[0][0] == notes[1][0]
    assert notes[2][0]["covariance"] == pytest.approx(notes[0][0]["covariance"], rel=1e-4)
    assert all(each["covariance"] > 1e-3 for found in notes for each in found[1:])
    # After it the repaired model is another one.
    assert notes[0][2] != notes[1][2]


def test_a_decoder_learns_with_the_repair(execute):
    for method in (FEDEX, SOFT | {"kept_ratio": 0.5}):
        _, progress, rows = execute(method, task="causal", train={"rounds": 4, "local_steps": 4})
        scores = [row["perplexity"] for row in rows if row["row"] == "round"]
        assert np.min(scores[1:]) < scores[0]
        assert shifts(progress.adapter)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (FEDEX | {"residual_rank": 33}, r"method.residual_rank: 33 is above the width 32 of '.*'"),
        (FEDEX | {"private": ["*.lora_A.*"]}, r"method.private: fedex_lora combines products"),
        (SOFT | {"train_a": False}, r"method.residual: soft cannot repair .* share both factors"),
        (SOFT | {"private": ["*.lora_B.*"]}, r"method.residual: soft cannot repair"),
        (
            SOFT | {"residual": False, "residual_rank": 2},
            r"method.residual_rank: no residual goes down; set method.residual=true",
        ),
    ],
)
def test_what_cannot_be_repaired_is_refused(small, method, words):
    with pytest.raises(UserError, match=words):
        build(Experiment(**small(method=method)))


@pytest.mark.parametrize("method", [FEDEX, SOFT], ids=lambda method: method["name"])
def test_other_adapters_than_lora_are_refused(small, method):
    with pytest.raises(UserError, match="kind lora"):
        build(Experiment(**small(method=method, adapter={"kind": "ia3", "rank": 4})))


def test_a_model_that_trains_more_than_linear_maps_is_refused(small, tmp_path):
    """Its adapters do not go through slots, which is where maps are shifted."""
    folder = tmp_path / "modern"
    config = ModernBertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    )
    ModernBertModel(config).save_pretrained(folder)
    encoder = small()["model"]["name"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{encoder}/{file}", folder)
    model = {"name": str(folder), "pooling": "native"}
    adapter = {"rank": 4, "targets": ["Wqkv"]}
    assert not build(Experiment(**small(model=model, adapter=adapter))).model.slots.stacked
    with pytest.raises(UserError, match=r"method.name: fedex_lora moves frozen weights"):
        build(Experiment(**small(method=FEDEX, model=model, adapter=adapter)))
