"""PFTT: what is shared, what stays, whose LoRA is how large, and what is refused."""

import re
import shutil
import sys

import numpy as np
import pytest
import torch

import airtune
from airtune import api
from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.session import personal_adapter
from airtune.learning.config import AdapterConfig
from airtune.learning.learner import Assignment
from airtune.learning.low_rank import factors, matrices
from airtune.learning.phase import Phase, supervised
from airtune.methods.pftt import narrowed

PFTT = {"name": "pftt"}
BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4}


@pytest.fixture
def execute(execute):
    """Runs with bottlenecks beside LoRA, unless a test says something else."""

    def run(method, adapter=None, **sections):
        return execute(method, adapter=BESIDE | (adapter or {}), **sections)

    return run


def test_with_equal_ranks_and_no_pull_it_is_averaging_with_private_lora(execute):
    _, own, rows = execute(PFTT)
    _, plain, expected = execute({"name": "fedavg", "private": ["*.lora_*"]})
    assert rows == expected
    assert all(torch.equal(own.adapter[name], plain.adapter[name]) for name in own.adapter)


def test_fedprox_of_clients_that_share_nothing_lets_them_learn(execute):
    _, _, rows = execute({"name": "fedprox", "private": ["*"]})
    assert rows == execute({"name": "fedavg", "private": ["*"]})[2]


def test_fedprox_without_a_pull_is_averaging_and_with_one_it_stays_nearer(execute):
    ends = {}
    for mu in (0.0, 10.0):
        _, ends[mu], rows = execute({"name": "fedprox", "proximal": mu})
        if mu == 0.0:
            assert rows == execute({"name": "fedavg"})[2]
    parts, _, _ = execute({"name": "fedavg"}, train={"rounds": 1})
    distance = {
        mu: sum(float((t - parts.model.initial[n]).square().sum()) for n, t in e.adapter.items())
        for mu, e in ends.items()
    }
    assert 0.0 < distance[10.0] < 0.5 * distance[0.0]


def private_of(parts):
    return [parts.clients.states.get(client)["private"] for client in range(5)]


def test_ranks_follow_examples_and_stay_what_they_are(execute):
    """2^round(log2(r_0 n / mean n)), by hand for the sizes that the partition made."""
    method = PFTT | {"ranks": "examples", "usual_rank": 4}
    clients = {"partition": "quantity", "alpha": 1.0}
    parts, _, _ = execute(method, clients=clients, adapter={"rank": 8})
    sizes = np.array([len(data) for data in parts.clients.data])
    expected = []
    for size in sizes:
        rank, best = 2, 2
        while rank <= 8:
            if abs(np.log2(rank * sizes.mean() / (4 * size))) < abs(
                np.log2(best * sizes.mean() / (4 * size))
            ):
                best = rank
            rank *= 2
        expected.append(best)
    found = [{factors(own, matrix).rank for matrix in matrices(own)} for own in private_of(parts)]
    assert found == [{rank} for rank in expected]
    assert len(set(expected)) > 1


def test_listed_ranks_go_round_and_train_as_a_model_of_that_rank_does(execute):
    """The oracle has the smaller rank itself, at the same scale and from the same start."""
    parts, _, _ = execute(PFTT | {"ranks": [4, 1]}, train={"rounds": 1, "local_steps": 4})
    assert [factors(own, matrices(own)[0]).rank for own in private_of(parts)] == [4, 1, 4, 1, 4]
    initial = narrowed(parts.model.initial, 1)
    config = AdapterConfig(**BESIDE, rank=1, alpha=parts.model.config.alpha / 4)
    small = type(parts.model)(parts.backbone, config, "classification", 0)
    learner = type(parts.learner)(small, parts.learner.config, 0)
    task = Assignment(1, 1, initial, [Phase(parts.clients.data[1], supervised, 4)])
    list(learner.train([task]))
    for name, tensor in private_of(parts)[1].items():
        assert torch.allclose(tensor, task.adapter[name], atol=1e-6), name
    moved = [n for n, t in private_of(parts)[1].items() if not torch.equal(t, initial[n])]
    assert len(moved) == 8  # both factors of four matrices


def test_by_turns_the_private_part_learns_first_and_steps_stay_the_same(execute):
    parts, _, _ = execute(PFTT | {"order": "alternate"}, train={"rounds": 1, "local_steps": 3})
    client = parts.clients._client(0, 1, parts.clients._heard[1])
    own, shared = parts.method.phases(client)
    assert (own.steps, shared.steps) == (1, 2)
    assert set(own.trains) | set(shared.trains) == set(parts.model.initial)
    assert all("lora_" in name for name in own.trains)
    assert not any("lora_" in name for name in shared.trains)


def test_personal_models_are_tried_on_common_texts_too(execute):
    parts, progress, rows = execute(PFTT, clients={"global_texts": 20})
    last = [row for row in rows if row["row"] == "round"][-1]
    common = parts.evaluator._common
    assert len(common) == 20
    test = parts.clients.kinds[0].test.select(common)
    right = []
    from airtune.wire import encode

    message = encode(parts.method.broadcast(progress._state, None))
    for client in range(5):
        own = parts.clients.personal_adapter(client, 3, message)
        seen = [each.logits.argmax(1) == each.batch["labels"]
                for each in parts.learner.predict(own, test)]  # fmt: skip
        right.append(float(torch.cat(seen).float().mean()))
    assert last["personal_global_accuracy"] == pytest.approx(np.mean(right))
    assert execute(PFTT)[2][-1]["personal_global_accuracy"] is None


@pytest.mark.parametrize("task", ["classification", "causal"])
def test_a_clients_own_model_is_exported_with_its_own_rank(small, tmp_path, monkeypatch, task):
    """Loaded without airtune it says what the client's model says here."""
    values = small(task, method=PFTT | {"ranks": [4, 1]}, adapter=BESIDE)
    run = airtune.run(Experiment(**values), tmp_path / "run")
    folder = api.export(run, tmp_path / "own", client="1")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.S)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("load", "base_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    namespace = {}
    exec(code.replace('"."', repr(str(folder))), namespace)
    parts = build(run.experiment)
    own = personal_adapter(run.path, parts.method, parts.clients, 1)
    assert factors(own, matrices(own)[0]).rank == 1
    batch = parts.clients.data[1].batch(np.arange(3))
    parts.model.slots.load([own])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        got = namespace["model"](**inputs).logits
        assert torch.allclose(got, parts.model.logits(batch), atol=1e-5)
        parts.model.slots.load([{**parts.model.initial, **run.adapter}])
        assert not torch.allclose(got, parts.model.logits(batch), atol=1e-3)


def test_without_its_checkpoint_a_run_is_left_as_it_is(small, tmp_path):
    run = airtune.run(Experiment(**small(train={"rounds": 1})), tmp_path / "run")
    shutil.rmtree(run.path / "checkpoint")
    before = (run.path / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"--client: '.*state.safetensors' is missing"):
        api.export(run, tmp_path / "own", client="1")
    assert (run.path / "ledger.jsonl").read_bytes() == before
    assert not (run.path / "checkpoint").exists()


def test_a_client_that_is_not_there_is_refused(small, tmp_path):
    run = airtune.run(Experiment(**small(train={"rounds": 1})), tmp_path / "run")
    with pytest.raises(UserError, match=r"--client: there is no client '7'; valid are: 0"):
        api.export(run, tmp_path / "own", client="7")
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("method", "sections", "words"),
    [
        (
            PFTT | {"order": "alternate"},
            {"train": {"local_steps": 1}},
            r"method.order: alternate halves train.local_steps",
        ),
        (
            PFTT | {"order": "alternate", "private": []},
            {},
            r"method.order: alternate trains the private tensors first, and none is",
        ),
        (
            PFTT,
            {"adapter": {"kind": "lora"}},  # only the head would be shared
            r"method.private: all adapters are private, so pftt .* lora\+bottleneck",
        ),
        (
            PFTT,
            {"task": "causal", "adapter": {"kind": "lora"}},
            r"method.private: all adapters are private",
        ),
        (PFTT | {"ranks": [4, 5]}, {}, r"method.ranks: 5 is above adapter.rank, 4"),
        (
            PFTT | {"ranks": "examples", "private": ["classifier.*"]},
            {},
            r"method.ranks: clients choose ranks of private LoRA, and '.*lora_A.* is shared",
        ),
        (
            PFTT | {"ranks": [1], "private": ["*attention*"]},
            {"adapter": {"kind": "bottleneck"}},
            r"method.ranks: .* there is no LoRA",
        ),
    ],
)
def test_what_cannot_be_is_refused(small, method, sections, words):
    with pytest.raises(UserError, match=words):
        build(Experiment(**small(method=method, **{"adapter": BESIDE} | sections)))


@pytest.mark.parametrize("options", [{"ranks": []}, {"ranks": [0]}, {"proximal": -1.0}])
def test_options_out_of_range_are_refused(small, options):
    with pytest.raises(UserError, match=f"method.{next(iter(options))}"):
        Experiment(**small(method=PFTT | options))
