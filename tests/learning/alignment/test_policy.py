"""Objectives of policy optimisation: their gradients are those that the formulas say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.policy import Policy, TwoRewards
from airtune.learning.alignment.scoring import log_probs
from airtune.learning.alignment.two_losses import TwoLosses
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig, TrainConfig
from airtune.learning.data.examples import Examples, pack
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase

RATE, KL = 0.5, 0.1
ROWS, LENGTH = 6, 12


@pytest.fixture(scope="module")
def learner(tiny_llama):
    backbone = load_backbone(ModelConfig(name=tiny_llama), "causal", None, torch.device("cpu"))
    model = AdaptedModel(backbone, AdapterConfig(rank=4), "causal", seed=0)
    config = TrainConfig(optimiser="sgd", learning_rate=RATE, clip_norm=None)
    return Learner(model, config, 0, MachineConfig(cohort=3))


def answers(learner, client, length=LENGTH):
    """Six answers of a client, drawn at random, with two advantages each."""
    rng = np.random.default_rng(client)
    rows = rng.integers(3, 200, (ROWS, length)).tolist()
    packed = pack(rows, np.full(ROWS, 4), "causal", 0, 64)
    reference = log_probs(learner.model, packed, None)
    columns = {"advantages": torch.from_numpy(rng.normal(size=(ROWS, 2))).float()}
    tokens = {"reference": reference, "old": reference + 0.01}
    corpus = replace(packed.corpus, columns=columns, token_columns=tokens)
    return Examples(corpus, packed.rows)


def one_reward(examples, column):
    column = {"advantage": examples.corpus.columns["advantages"][:, column]}
    return Examples(replace(examples.corpus, columns=column), examples.rows)


def start(learner, client):
    """Factors that are not zero, so that all have gradients."""
    draw = torch.Generator().manual_seed(client)
    return {n: t + 0.05 * torch.randn(t.shape, generator=draw)
            for n, t in learner.model.initial.items()}  # fmt: skip


def stepped(learner, clients, phase_of):
    tasks = [Assignment(c, 0, start(learner, c), [phase_of(c)]) for c in clients]
    for _ in learner.train(tasks):
        pass
    return tasks


def gradient(learner, client, task):
    """What one step of gradient descent moved, divided by its rate."""
    before = start(learner, client)
    return torch.cat([((before[n] - t) / RATE).flatten() for n, t in task.adapter.items()]).double()


def phase(learner, client, objective, **constants):
    return Phase(answers(learner, client), objective, 1, batch_size=ROWS, constants=constants)


def expected(learner, client):
    """u and v by two runs of one reward each."""
    found = []
    for column in range(2):
        own = Phase(one_reward(answers(learner, client), column), Policy(0.2, KL), 1,
                    batch_size=ROWS)  # fmt: skip
        (task,) = stepped(learner, [client], lambda _, own=own: own)
        found.append((gradient(learner, client, task), task.losses[0]))
    return found


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("rule", ["fixed", "mgda", "anchored"])
def test_the_step_is_along_the_weighted_gradients(learner, rule, stretched):
    a, kappa = 0.8, 0.7
    objective = TwoRewards(TwoLosses(rule, kappa, equal_length=stretched), 0.2, KL)
    (u, first), (v, second) = expected(learner, 1)
    strength = {
        "fixed": 1e9,
        "mgda": 0.0,
        "anchored": kappa * 0.5 * float(u @ u + v @ v),
    }
    above = float((v - u) @ v) + strength[rule] * a
    g = min(max(above / (float((u - v) @ (u - v)) + strength[rule]), 0.0), 1.0)
    assert 0.02 < g < 0.98
    own = phase(learner, 1, objective, preference=torch.tensor(a))
    (task,) = stepped(learner, [1], lambda _: own)
    moved = gradient(learner, 1, task)
    wanted = g * u + (1 - g) * v
    if stretched:
        wanted = wanted * float((a * u + (1 - a) * v).norm() / wanted.norm())
    assert float((moved - wanted).norm()) < 1e-3 * float(wanted.norm())
    assert float((u - v).norm()) > 0.1 * float(wanted.norm())  # so that g matters
    assert task.losses[0] == pytest.approx(g * first + (1 - g) * second, abs=1e-5)


def test_clients_of_unequal_lengths_step_as_they_do_alone(learner):
    """Two lengths are two passes: gradients are taken in some of the slots at a time."""

    def own(client):
        data = answers(learner, client, LENGTH + 16 * (client == 2))
        constants = {"preference": torch.tensor(0.2 * client)}
        return Phase(
            data,
            TwoRewards(TwoLosses("anchored"), 0.2, KL),
            2,
            batch_size=ROWS,
            constants=constants,
        )

    together = stepped(learner, range(3), own)
    for client in range(3):
        (alone,) = stepped(learner, [client], own)
        assert alone.losses == together[client].losses
        for name, tensor in alone.adapter.items():
            assert torch.equal(tensor, together[client].adapter[name]), name


def test_what_does_not_train_has_no_say(learner):
    (u, _), (v, _) = expected(learner, 0)
    own = replace(phase(learner, 0, TwoRewards(TwoLosses("mgda"), 0.2, KL)), trains=("*lora_B*",))
    (task,) = stepped(learner, [0], lambda _: own)
    names = list(task.adapter)
    sizes = [task.adapter[name].numel() for name in names]
    u, v, moved = (
        torch.cat([p for n, p in zip(names, x.split(sizes), strict=True) if "lora_B" in n])
        for x in (u, v, gradient(learner, 0, task))
    )
    g = min(max(float((v - u) @ v) / float((u - v) @ (u - v)), 0.0), 1.0)
    assert float((moved - g * u - (1 - g) * v).norm()) < 1e-3 * float(moved.norm())
    assert torch.equal(
        task.adapter[names[0]] if "lora_A" in names[0] else task.adapter[names[1]],
        start(learner, 0)[names[0] if "lora_A" in names[0] else names[1]],
    )


def test_split_weighs_what_is_private_by_the_client_and_what_is_shared_alike(learner):
    (u, _), (v, _) = expected(learner, 1)
    weighing = TwoLosses("split", private=("*lora_A*",), common=0.4)
    own = phase(learner, 1, TwoRewards(weighing, 0.2, KL), preference=torch.tensor(0.9))
    (task,) = stepped(learner, [1], lambda _: own)
    moved, at = gradient(learner, 1, task), 0
    for name, tensor in task.adapter.items():
        part = slice(at, at + tensor.numel())
        g = 0.9 if "lora_A" in name else 0.4
        wanted = g * u[part] + (1 - g) * v[part]
        assert float((moved[part] - wanted).norm()) < 1e-3 * float(wanted.norm()), name
        at = part.stop
