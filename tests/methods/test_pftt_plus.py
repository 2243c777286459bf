"""PFTT+: learned as one model, and answered by each client with its own mix of classes."""

import numpy as np
import pytest
import torch

import airtune
from airtune import api
from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.session import personal_adapter
from airtune.learning.label_bias import LABEL_BIAS, label_bias
from airtune.wire import encode

PLUS = {"name": "pftt_plus", "averaged": 1}
SKEWED = {"partition": "dirichlet", "alpha": 0.1, "test_fraction": 0.5, "global_texts": 30}
BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4}
OWN = {"personal_accuracy", "personal_loss", "personal_global_accuracy"}


@pytest.fixture
def execute(execute):
    """Runs of clients with few classes each, unless a test says something else."""

    def run(method, clients=None, **sections):
        return execute(method, clients=SKEWED | (clients or {}), adapter=BESIDE, **sections)

    return run


def test_it_is_learned_and_sent_as_one_model(execute):
    _, own, rows = execute(PLUS)
    _, plain, expected = execute({"name": "fedavg"})
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in OWN} == {
            k: v for k, v in other.items() if k not in OWN
        }
    assert all(torch.equal(own.adapter[name], plain.adapter[name]) for name in plain.adapter)
    assert LABEL_BIAS not in own.adapter
    assert rows[-1]["personal_accuracy"] > expected[-1]["personal_accuracy"]


def test_without_a_share_of_its_own_a_client_answers_as_the_server(execute):
    assert execute(PLUS | {"own_share": 0.0})[2] == execute({"name": "fedavg"})[2]


def test_clients_are_scored_with_their_own_classes_favoured(execute):
    """The oracle takes the server's logits and counts each client's labels."""
    parts, progress, rows = execute(PLUS | {"own_share": 0.6})
    kind, common = parts.clients.kinds[0], parts.evaluator._common

    def right(examples, bias):
        seen = parts.learner.predict(progress.adapter, examples)
        return np.mean(np.concatenate(
            [((p.logits + bias).argmax(1) == p.batch["labels"]).numpy() for p in seen]
        ))  # fmt: skip

    personal, everywhere = {}, []
    for client in range(5):
        mine = parts.table.train["_label"].to_numpy()[parts.shares[client].train]
        bias = label_bias(np.bincount(mine, minlength=len(parts.table.classes)), 0.6)
        personal[client] = right(kind.pool.select(parts.shares[client].test), bias)
        everywhere.append(right(kind.test.select(common), bias))
    found = {client: scores["accuracy"] for client, scores in progress.personal.items()}
    assert found == pytest.approx(personal)
    assert rows[-1]["personal_global_accuracy"] == pytest.approx(np.mean(everywhere))


def test_the_mean_of_the_last_broadcasts_answers_and_the_last_one_trains(execute):
    """Broadcasts are those of a plain run; a client heard the third last in round 2."""
    _, _, plain = execute({"name": "fedavg"})
    parts, progress, rows = execute(PLUS | {"averaged": 3})
    assert [row["bits"] for row in rows if row["row"] == "upload"] == [
        row["bits"] for row in plain if row["row"] == "upload"
    ]
    heard = []
    for rounds in (1, 2, 3):
        heard.append(execute({"name": "fedavg"}, train={"rounds": rounds})[1].adapter)
    message = encode(parts.method.broadcast(progress._state, None))
    own = parts.clients.personal_adapter(1, 3, message)
    for name, tensor in progress.adapter.items():
        mean = sum(each[name].double() for each in heard) / 3
        assert torch.allclose(own[name].double(), mean, atol=1e-6), name
        assert torch.equal(tensor, heard[-1][name])


def test_private_lora_stays_beside_the_bias(execute):
    parts, progress, _ = execute(PLUS | {"private": ["*.lora_*"]})
    message = encode(parts.method.broadcast(progress._state, None))
    kept = [parts.clients.states.get(client)["private"] for client in range(5)]
    for client in range(5):
        own = parts.clients.personal_adapter(client, 4, message)
        assert set(own) == {*parts.model.initial, LABEL_BIAS}
        assert set(kept[client]) == {n for n in own if ".lora_" in n}
        assert all(torch.equal(own[name], tensor) for name, tensor in kept[client].items())


def test_a_clients_export_answers_as_the_client_does(small, tmp_path):
    from safetensors.torch import load_file

    values = small(method=PLUS, clients=SKEWED, adapter=BESIDE, train={"rounds": 1})
    run = airtune.run(Experiment(**values), tmp_path / "run")
    names = [build(run.experiment).shares.name(index) for index in range(5)]
    folder = api.export(run, tmp_path / "own", client=names[2])
    parts = build(run.experiment)
    own = personal_adapter(run.path, parts.method, parts.clients, 2)
    found = load_file(folder / "adapter.safetensors")
    assert set(found) == set(run.adapter)
    difference = found["classifier.bias"] - run.adapter["classifier.bias"]
    assert torch.allclose(difference, own[LABEL_BIAS], atol=1e-6)


@pytest.mark.parametrize(
    ("task", "sections", "words"),
    [
        ("causal", {}, r"method.name: pftt_plus gives clients their own mix of classes"),
        ("classification", {"model": "llama"}, r"method.name: .* this model's head has none"),
        (
            "classification",
            {"method": PLUS | {"private": ["*.lora_*", "*bottleneck*"]}, "adapter": BESIDE},
            r"method.private: all adapters are private, so pftt_plus",
        ),
    ],
)
def test_what_cannot_be_is_refused(small, tiny_llama, task, sections, words):
    if sections.get("model") == "llama":
        sections = {"model": {"name": tiny_llama}}
    with pytest.raises(UserError, match=words):
        build(Experiment(**small(task, **{"method": PLUS} | sections)))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_out_of_range_are_refused(small, share):
    with pytest.raises(UserError, match=r"method.own_share"):
        Experiment(**small(method=PLUS | {"own_share": share}))
