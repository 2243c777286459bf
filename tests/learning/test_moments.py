"""Optimisers that go on from round to round, against Adam in numpy and runs of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.config import MachineConfig
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised

BETAS, EPSILON = (0.9, 0.999), 1e-8


def pull(step):
    """A pull towards each client's own anchor: its gradient is weight times the gap."""
    return step.constants["weight"] * sum(
        0.5 * (value - step.constants[name]).square().flatten(1).sum(1)
        for name, value in step.adapter().items()
    )


def anchors(parts, client):
    """So near that steps overshoot, and gradients change their sign from step to step."""
    rng = torch.Generator().manual_seed(client)
    near = {
        n: v + 0.02 * torch.randn(v.shape, generator=rng) for n, v in parts.model.initial.items()
    }
    return {**near, "weight": torch.tensor(0.5 + client)}


def pulled(parts, client, steps, **further):
    constants = anchors(parts, client)
    data = parts.clients.data[client]
    return Phase(data, pull, steps, constants=constants, **{"goes_on": True, **further})


class Adam:
    """AdamW of one client in float64, as Kingma and Ba, and Loshchilov and Hutter, write it."""

    def __init__(self, parts, client):
        config, heads = parts.learner.config, parts.model.head_names
        self.values = {n: v.double().numpy().copy() for n, v in parts.model.initial.items()}
        constants = anchors(parts, client)
        self.weight = float(constants.pop("weight"))
        self.anchors = {n: v.double().numpy() for n, v in constants.items()}
        self.rates = {
            n: config.head_learning_rate if n in heads else config.learning_rate
            for n in self.values
        }
        self.decay, self.bound = config.weight_decay, config.clip_norm
        self.forget()

    def forget(self):
        self.means = {n: np.zeros_like(v) for n, v in self.values.items()}
        self.squares = {n: np.zeros_like(v) for n, v in self.values.items()}
        self.fresh = True

    def run(self, steps, names=None):
        """One phase; at its end what remains of the first steps' bias is taken out."""
        names = list(names or self.values)
        for step in range(1, steps + 1):
            slopes = {n: self.weight * (self.values[n] - self.anchors[n]) for n in names}
            norm = np.sqrt(sum((slope**2).sum() for slope in slopes.values()))
            scale = 1.0 if self.bound is None else min(1.0, self.bound / (norm + 1e-6))
            for n in names:
                slope = scale * slopes[n]
                self.means[n] = BETAS[0] * self.means[n] + (1 - BETAS[0]) * slope
                self.squares[n] = BETAS[1] * self.squares[n] + (1 - BETAS[1]) * slope**2
                mean, square = self.unbiased(n, step)
                self.values[n] *= 1 - self.rates[n] * self.decay
                self.values[n] -= self.rates[n] * mean / (np.sqrt(square) + EPSILON)
        for n in names:
            self.means[n], self.squares[n] = self.unbiased(n, steps)
        self.fresh = False
        return self

    def unbiased(self, name, step):
        mean, square = self.means[name], self.squares[name]
        if self.fresh:
            return mean / (1 - BETAS[0] ** step), square / (1 - BETAS[1] ** step)
        return mean, square

    def assert_is(self, task):
        for name, value in self.values.items():
            np.testing.assert_allclose(task.adapter[name], value, rtol=1e-4, atol=2e-6)
            mean, square = task.moments[name].double().numpy()
            np.testing.assert_allclose(mean, self.means[name].ravel(), rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(square, self.squares[name].ravel(), rtol=1e-3, atol=1e-8)


def trained(parts, cohort, tasks):
    learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=cohort))
    groups = [len(group) for group in learner.train(tasks)]
    assert sum(groups) == len(tasks)
    return groups


def task_of(parts, client, *phases, before=None, number=1):
    adapter = dict(before.adapter if before else parts.model.initial)
    moments = dict(before.moments if before else {})
    return Assignment(client, number, adapter, list(phases), moments)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_two_rounds_are_an_adam_whose_bias_ends_at_the_border(small, clip, decay):
    parts = build(Experiment(**small(train={"clip_norm": clip, "weight_decay": decay})))
    for client in (0, 1):
        adam = Adam(parts, client)
        first = task_of(parts, client, pulled(parts, client, 4))
        trained(parts, 1, [first])
        adam.run(4).assert_is(first)
        second = task_of(parts, client, pulled(parts, client, 5), before=first, number=2)
        trained(parts, 1, [second])
        adam.run(5).assert_is(second)


def test_two_phases_of_a_round_are_two_rounds(small):
    parts = build(Experiment(**small()))
    both = task_of(parts, 2, pulled(parts, 2, 3), pulled(parts, 2, 4))
    trained(parts, 1, [both])
    Adam(parts, 2).run(3).run(4).assert_is(both)


def test_without_going_on_each_phase_starts_anew_and_leaves_moments_alone(small):
    parts = build(Experiment(**small()))
    anew = pulled(parts, 3, 4, goes_on=False)
    first = task_of(parts, 3, anew, anew)
    trained(parts, 1, [first])
    assert first.moments == {}
    adam = Adam(parts, 3).run(4)
    adam.forget()
    adam.run(4)
    for name, value in adam.values.items():
        np.testing.assert_allclose(first.adapter[name], value, rtol=1e-4, atol=2e-6)
    known = {name: torch.rand(2, v.numel()) for name, v in parts.model.initial.items()}
    second = Assignment(3, 1, dict(parts.model.initial), [anew, anew], dict(known))
    trained(parts, 1, [second])
    assert second.moments.keys() == known.keys()
    for name, value in known.items():
        assert second.moments[name] is value
        assert torch.equal(first.adapter[name], second.adapter[name]), name


def test_a_phase_goes_on_from_the_last_one_that_did(small):
    """In between another starts anew: only the values remember it."""
    parts = build(Experiment(**small()))
    phases = pulled(parts, 1, 3), pulled(parts, 1, 2, goes_on=False), pulled(parts, 1, 3)
    task = task_of(parts, 1, *phases)
    trained(parts, 1, [task])
    adam = Adam(parts, 1).run(3)
    means, squares = adam.means, adam.squares
    adam.forget()
    adam.run(2)
    adam.means, adam.squares = means, squares
    adam.run(3).assert_is(task)


def test_each_client_goes_on_at_its_own_rate(small):
    """Unequal rates, then others, then equal ones: rates need not be those of the last round."""
    parts = build(Experiment(**small()))
    adams, before = [Adam(parts, client) for client in range(3)], [None] * 3
    usual = adams[0].rates
    for number, rates in enumerate([(1.0, 0.1, 3.0), (2.0, 0.3, 1.0), (0.5, 0.5, 0.5)], 1):
        before = [
            task_of(parts, c, pulled(parts, c, 3, rate=r), before=before[c], number=number)
            for c, r in enumerate(rates)
        ]
        assert trained(parts, 3, before) == [3]
        for adam, rate, task in zip(adams, rates, before, strict=True):
            adam.rates = {name: rate * value for name, value in usual.items()}
            adam.run(3).assert_is(task)


def histories(parts, steps):
    """Each client after a round of its own with so many steps; 0 is one that has not been."""
    before = []
    for client, count in enumerate(steps):
        task = task_of(
            parts, client, Phase(parts.clients.data[client], supervised, count, goes_on=True)
        )
        if count:
            trained(parts, 1, [task])
        before.append(task)
    assert [bool(task.moments) for task in before] == [count > 0 for count in steps]
    return before


def assert_bytes_are_equal(alone, together):
    for one, other in zip(alone, together, strict=True):
        assert one.losses == other.losses
        assert one.moments.keys() == other.moments.keys()
        for name, value in one.adapter.items():
            assert torch.equal(value, other.adapter[name]), name
        for name, value in one.moments.items():
            assert torch.equal(value, other.moments[name]), name


@pytest.mark.parametrize("task", ["classification", "causal"])
@pytest.mark.parametrize("cohort", [2, 3])
def test_clients_of_any_history_train_side_by_side_as_alone(small, task, cohort):
    parts = build(Experiment(**small(task)))
    before = histories(parts, [0, 2, 5, 0, 3])

    def again():
        return [
            task_of(
                parts, c, Phase(parts.clients.data[c], supervised, 2, goes_on=True),
                Phase(parts.clients.data[c], supervised, 3, goes_on=True),
                before=before[c], number=2,
            )
            for c in range(5)
        ]  # fmt: skip

    alone, together = again(), again()
    assert trained(parts, 1, alone) == [1] * 5
    groups = trained(parts, cohort, together)
    assert max(groups) == cohort
    assert len(groups) == (3 if cohort == 2 else 2), "those without moments train by themselves"
    assert_bytes_are_equal(alone, together)
    assert all(task.moments.keys() == parts.model.initial.keys() for task in together)


@pytest.mark.parametrize("known", [False, True])
def test_who_takes_fewer_steps_keeps_the_moments_of_its_last_one(small, known):

    # they are freed of the bias of the longest client's steps.
    parts = build(Experiment(**small()))
    before = histories(parts, [2, 4, 3] if known else [0, 0, 0])

    def again():
        return [
            task_of(parts, c, pulled(parts, c, steps), pulled(parts, c, 2), before=before[c])
            for c, steps in enumerate([2, 5, 3])
        ]

    alone, together = again(), again()
    trained(parts, 1, alone)
    assert trained(parts, 3, together) == [3]
    assert_bytes_are_equal(alone, together)


def test_a_phase_may_train_more_than_the_one_it_goes_on_from(small):

    parts = build(Experiment(**small()))
    some, whole = pulled(parts, 0, 3, trains=("*lora_B*",)), pulled(parts, 0, 3)
    task = task_of(parts, 0, some, whole)
    trained(parts, 1, [task])
    assert task.moments.keys() == parts.model.initial.keys()


def test_a_phase_may_train_less_than_the_one_it_goes_on_from(small):
    parts = build(Experiment(**small()))
    chosen = [name for name in parts.model.initial if "lora_B" in name]
    task = task_of(parts, 0, pulled(parts, 0, 3), pulled(parts, 0, 4, trains=("*lora_B*",)))
    trained(parts, 1, [task])
    Adam(parts, 0).run(3).run(4, chosen).assert_is(task)


def test_unequal_ranks_go_on_side_by_side(small):
    parts = build(Experiment(**small("causal")))

    def cut(rank):
        return {
            n: (v[:rank] if "lora_A" in n else v[:, :rank]).clone()
            for n, v in parts.model.initial.items()
        }

    def rounds(cohort):
        tasks = [Assignment(c, 1, cut(rank), []) for c, rank in enumerate([4, 1, 2])]
        for number in (1, 2):
            for task in tasks:
                data = parts.clients.data[task.client]
                task.round, task.phases = number, [Phase(data, supervised, 3, goes_on=True)]
            trained(parts, cohort, tasks)
        return tasks

    assert_bytes_are_equal(rounds(1), rounds(3))


def test_plain_descent_remembers_nothing(small):
    train = {"optimiser": "sgd", "clip_norm": None, "learning_rate": 0.1, "head_learning_rate": 0.1}
    parts = build(Experiment(**small(train=train)))
    tasks = [task_of(parts, c, pulled(parts, c, 2), pulled(parts, c, 3)) for c in range(3)]
    trained(parts, 3, tasks)
    for client, task in enumerate(tasks):
        assert task.moments == {}
        constants = anchors(parts, client)
        shrunk = (1 - 0.1 * float(constants["weight"])) ** 5
        for name, value in task.adapter.items():
            start = parts.model.initial[name]
            expected = constants[name] + shrunk * (start - constants[name])
            assert torch.allclose(value, expected, atol=1e-6), name


def test_moments_of_an_adam_mean_nothing_to_plain_descent(small):
    train = {"optimiser": "sgd", "learning_rate": 0.1}
    parts = build(Experiment(**small(train=train)))
    known = {name: torch.rand(2, v.numel()) for name, v in parts.model.initial.items()}
    plain = task_of(parts, 0, pulled(parts, 0, 3))
    given = Assignment(0, 1, dict(parts.model.initial), [pulled(parts, 0, 3)], dict(known))
    trained(parts, 1, [plain])
    trained(parts, 1, [given])
    for name, value in plain.adapter.items():
        assert torch.equal(value, given.adapter[name]), name
