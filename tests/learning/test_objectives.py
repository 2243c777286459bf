"""Cohorts over every sort of objective: a slot's numbers are those of a run of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.config import MachineConfig
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised, token_losses
from airtune.learning.proximal import Proximal, anchors


def distillation(step):
    """KL from a teacher's class probabilities to the student's, at temperature 2."""
    student = functional.log_softmax(step.logits() / 2.0, dim=1)
    teacher = functional.softmax(step.batch["teacher"] / 2.0, dim=1)
    losses = functional.kl_div(student, teacher, reduction="none").sum(1)
    return 4.0 * losses.view(step.slots, -1).mean(1)


def preference(step):
    """DPO on pairs: chosen and rejected follow one another; the reference's sums are a column."""
    losses, _ = token_losses(step.logits(), step.batch["labels"])
    gain = (step.batch["reference"] - losses).view(step.slots, -1, 2)
    margin = step.constants["beta"][:, None] * (gain[..., 0] - gain[..., 1])
    return -functional.logsigmoid(margin).mean(1)


def with_column(examples, **columns):
    return Examples(replace(examples.corpus, columns=columns), examples.rows)


def teach(parts, client):
    data = parts.clients.data[client]
    rng = torch.Generator().manual_seed(0)
    teacher = torch.randn(len(data.corpus.lengths), 8, generator=rng)
    return Phase(with_column(data, teacher=teacher), distillation, 3 - client % 2)


def prefer(parts, client):
    data = parts.clients.data[client]
    pairs = data.rows[: len(data) // 2 * 2].reshape(-1, 2)
    reference = torch.full((len(data.corpus.lengths),), 20.0)
    own = Examples(replace(data.corpus, columns={"reference": reference}), pairs)
    return Phase(own, preference, 2, constants={"beta": torch.tensor(0.1 * (client + 1))})


def stay(parts, client):
    anchor = {name: value + 0.01 * client for name, value in parts.model.initial.items()}
    return Phase(
        parts.clients.data[client], Proximal(0.5), 3, constants=anchors(anchor, list(anchor))
    )


def trained(parts, cohort, phases, adapters=None):
    learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=cohort))
    tasks = [
        Assignment(c, 1, dict((adapters or {}).get(c, parts.model.initial)), [phase])
        for c, phase in enumerate(phases)
    ]
    groups = [len(group) for group in learner.train(tasks)]
    return tasks, groups


def assert_equal(alone, together):
    for one, other in zip(alone, together, strict=True):
        assert one.losses == other.losses
        assert len(set(one.losses)) > 1, "nothing was learned"
        for name, tensor in one.adapter.items():
            assert torch.equal(tensor, other.adapter[name]), name


@pytest.mark.parametrize(
    ("task", "make"), [("classification", teach), ("causal", prefer), ("classification", stay)]
)
def test_any_objective_trains_in_a_cohort_as_alone(small, task, make):
    parts = build(Experiment(**small(task, clients={"partition": "quantity", "alpha": 0.7})))
    alone, groups = trained(parts, 1, [make(parts, c) for c in range(5)])
    assert groups == [1] * 5
    # A corpus of its own for each client (distillation) must not keep clients apart.
    together, groups = trained(parts, 5, [make(parts, c) for c in range(5)])
    assert groups == [5]
    assert_equal(alone, together)


def test_a_proximal_pull_has_the_gradient_of_its_formula(small):
    """With supervised loss off (one SGD step on the pull alone) the step is lr * weight * gap."""
    train = {"optimiser": "sgd", "clip_norm": None, "learning_rate": 0.1, "head_learning_rate": 0.1}
    parts = build(Experiment(**small(train=train)))

    def nothing(step):
        return torch.zeros(step.slots)

    pull = Proximal(0.5, nothing)
    phases = [replace(stay(parts, client), objective=pull, steps=1) for client in range(3)]
    tasks, _ = trained(parts, 3, phases)
    for client, task in enumerate(tasks):
        for name, value in task.adapter.items():
            expected = parts.model.initial[name] + 0.1 * 0.5 * 0.01 * client
            assert torch.allclose(value, expected, atol=1e-6), name


def cut(adapter, rank):
    return {
        name: (v[:rank] if "lora_A" in name else v[:, :rank] if "lora_B" in name else v).clone()
        for name, v in adapter.items()
    }


def test_unequal_ranks_train_side_by_side_and_keep_their_shape(small):
    parts = build(Experiment(**small("causal", train={"weight_decay": 0.1})))
    ranks = [4, 1, 2, 3, 4]
    adapters = {c: cut(parts.model.initial, rank) for c, rank in enumerate(ranks)}
    phases = [Phase(parts.clients.data[c], supervised, 3) for c in range(5)]
    alone, _ = trained(parts, 1, phases, adapters)
    together, _ = trained(parts, 5, phases, adapters)
    assert_equal(alone, together)
    for task, rank in zip(together, ranks, strict=True):
        a = next(value for name, value in task.adapter.items() if "lora_A" in name)
        assert a.shape[0] == rank


def test_a_padded_rank_equals_a_model_of_that_rank(small):
    wide = build(Experiment(**small("causal", adapter={"rank": 4, "alpha": 16})))
    narrow = build(Experiment(**small("causal", adapter={"rank": 2, "alpha": 8})))
    start = cut(wide.model.initial, 2)
    phase = Phase(wide.clients.data[0], supervised, 3)
    (padded,), _ = trained(wide, 1, [phase], {0: start})
    (exact,), _ = trained(narrow, 1, [phase], {0: start})
    for name, value in exact.adapter.items():
        assert torch.allclose(value, padded.adapter[name], atol=1e-6), name


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_each_client_learns_at_its_own_rate(small, optimiser):
    parts = build(Experiment(**small(train={"optimiser": optimiser, "learning_rate": 1e-3})))
    rates = [1.0, 0.1, 3.0, 1.0, 0.5]
    phases = [Phase(parts.clients.data[c], supervised, 3, rate=r) for c, r in enumerate(rates)]
    together, _ = trained(parts, 5, phases)
    for client, rate in enumerate(rates):
        train = parts.learner.config
        scaled = train.model_copy(
            update={
                "learning_rate": rate * train.learning_rate,
                "head_learning_rate": rate * train.head_learning_rate,
            }
        )
        learner = Learner(parts.model, scaled, 0, MachineConfig(cohort=1))
        task = Assignment(client, 1, dict(parts.model.initial), [replace(phases[client], rate=1.0)])
        list(learner.train([task]))
        for name, value in task.adapter.items():
            assert torch.allclose(value, together[client].adapter[name], atol=1e-7), name


def test_the_optimiser_and_clipping_are_torchs(small):
    """Fused and in blocks, against torch's plain AdamW and clipping tensor by tensor."""
    from airtune.learning import optimiser

    parts = build(Experiment(**small(train={"weight_decay": 0.1})))
    slots, config = parts.model.slots, parts.learner.config
    heads = parts.model.head_names
    slots.load([parts.model.initial] * 3, [[n for n in slots.shapes if n not in heads]])
    stepper = optimiser.Steppers(config, heads).fresh(slots.blocks, [1.0] * 3)
    rng = torch.Generator().manual_seed(0)
    gradients = [
        [{n: torch.randn(s, generator=rng) for n, s in slots.shapes.items()} for _ in range(3)]
        for _ in range(4)
    ]
    for step in gradients:
        for name, parameter in slots.parameters.items():
            parameter.grad = torch.stack([own[name] for own in step])
        for block in slots.blocks:
            block.collect()
        optimiser.clip(slots.blocks, optimiser.gradient_norms(slots.blocks), 1.0)
        stepper.step()
    for slot, learned in enumerate(slots.read()):
        plain = {n: torch.nn.Parameter(v.clone()) for n, v in parts.model.initial.items()}
        reference = torch.optim.AdamW(
            [
                {"params": [p for n, p in plain.items() if n not in heads]},
                {"params": [plain[n] for n in heads], "lr": config.head_learning_rate},
            ],
            lr=config.learning_rate, weight_decay=0.1, fused=False, foreach=False,
        )  # fmt: skip
        for step in gradients:
            for name, parameter in plain.items():
                parameter.grad = step[slot][name].clone()
            torch.nn.utils.clip_grad_norm_(plain.values(), 1.0)
            reference.step()
        for name, parameter in plain.items():
            assert torch.allclose(parameter, learned[name], atol=1e-6), name


def test_batches_are_passes_over_the_rows_laid_end_to_end(small):
    from airtune.learning.batches import CohortBatches, schedule

    parts = build(Experiment(**small()))
    data = parts.clients.data[0]
    own = schedule(data, 7, 16, seed=0, round=1, client=0, phase=0)
    seen = own.rows.reshape(-1)
    whole = len(seen) // len(data) * len(data)
    for start in range(0, whole, len(data)):
        assert sorted(seen[start : start + len(data)]) == sorted(data.rows)
    groups = list(CohortBatches([own]).step(3))
    assert [group.rows.tolist() for group in groups] == [own.rows[3].tolist()]
    assert groups[0].length % 8 == 0
    assert groups[0].length >= data.corpus.lengths[own.rows[3]].max()
    few = schedule(data.select(data.rows[:3]), 2, 16, seed=0, round=1, client=0, phase=0)
    assert np.array_equal(np.sort(few.rows, axis=1), np.sort(np.tile(data.rows[:3], (2, 1)), 1))
