"""Cohort training: the place where gradients are taken."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from airtune.learning import optimiser
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.batches import CohortBatches, Group, schedule
from airtune.learning.cohorts import CohortSizes
from airtune.learning.config import MachineConfig, TrainConfig
from airtune.learning.data.examples import Examples
from airtune.learning.inputs import Inputs
from airtune.learning.optimiser import Moments
from airtune.learning.phase import Draft, Maker, Objective, Pass, Phase
from airtune.learning.prediction import Evaluation, Prediction, evaluation, predict
from airtune.learning.projections import Taps
from airtune.learning.shifts import identity, shift_name, shifts
from airtune.learning.slots import zero_padded


@dataclass
class Assignment:
    """One client's work of a round; ``adapter`` is replaced by what was learned, shifts stay.

    ``moments`` are those of the optimiser, for phases that go on from them. ``made`` are the notes
    of each phase that made its data.
    """

    client: int
    round: int
    adapter: Adapter
    phases: list[Phase]
    moments: Moments = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)  # before clipping
    tokens: int = 0
    predicted_tokens: int = 0  # to make data, and for further passes back
    made: list[Mapping[str, float]] = field(default_factory=list)
    diverged: bool = False  # a loss or a learned value is not finite

    @property
    def loss(self) -> float | None:
        """Mean of all steps, None without one."""
        return _mean(self.losses)

    @property
    def gradient_norm(self) -> float | None:
        """Mean of all steps, None without one."""
        return _mean(self.gradient_norms)


class Learner:
    """Trains K clients' adapters side by side; K = 1 is the real device."""

    def __init__(
        self,
        model: AdaptedModel,
        config: TrainConfig,
        seed: int,
        machine: MachineConfig | None = None,
    ) -> None:
        machine = machine or MachineConfig()
        self.model, self.config, self.seed = model, config, seed
        self.device = model.device
        fixed = machine.cohort if model.side_by_side else 1
        self.sizes = CohortSizes(fixed, model.tokens_per_pass)
        self._steppers = optimiser.Steppers(config, model.head_names)
        self._inputs = Inputs(model, machine.prefix_cache_gb * 1e9)

    def train(self, tasks: Sequence[Assignment]) -> Iterator[Sequence[Assignment]]:
        """Run every task's phases, yielding each cohort of tasks when it is done.

        Tasks whose phases are alike and whose shifts are the same share forward passes.
        """
        for group in _alike(tasks).values():
            # Neighbours in a cohort should have steps and lengths alike, so that they share more.
            waiting = sorted(group, key=self._effort, reverse=True)
            while waiting:
                step_tokens = self._step_tokens(waiting[0])
                work = (_recipe(waiting[0]), step_tokens.bit_length())
                size = self.sizes.choose(work, len(waiting), step_tokens)
                cohort, waiting = waiting[:size], waiting[size:]
                started, filled = time.perf_counter(), self._inputs.seconds
                self._train_cohort(cohort)
                seconds = time.perf_counter() - started - (self._inputs.seconds - filled)
                self.sizes.record(work, len(cohort), sum(t.tokens for t in cohort), seconds)
                yield cohort

    def predict(
        self, adapter: Adapter, examples: Examples, taps: Taps | None = None
    ) -> Iterator[Prediction]:
        """Return predictions for all examples, a pass of rows of similar length at a time.

        Reduce what is yielded before the next pass: all logits together may not fit into memory.
        """
        return predict(self.model, self._inputs, adapter, examples, taps)

    def evaluate(self, adapter: Adapter, examples: Examples) -> Evaluation:
        """Evaluate one adapter on examples; of pairs on the chosen answers."""
        return evaluation(self.predict(adapter, examples.first), len(examples))

    def _train_cohort(self, cohort: Sequence[Assignment]) -> None:
        slots = self.model.slots
        parts = list(self._parts(cohort[0].phases))
        slots.load([task.adapter for task in cohort], parts)
        for index, first in enumerate(cohort[0].phases):
            phases = [task.phases[index] for task in cohort]
            if first.maker is not None:
                phases = self._with_data(first.maker, cohort, index)
                slots.load([task.adapter for task in cohort], parts)  # the maker used the slots
            self._run_phase(cohort, phases, index)
            if first.maker is not None:
                for phase in phases:
                    self._inputs.forget(phase.data)
        for task, adapter, finite in zip(cohort, slots.read(), slots.finite(), strict=True):
            frozen = {shift_name(matrix): t for matrix, t in shifts(task.adapter).items()}
            task.adapter = {**adapter, **frozen}
            task.diverged |= not finite

    def _parts(self, phases: Sequence[Phase]) -> Iterable[list[str]]:
        """Group tensors that train at the same rate in the same phases."""
        parts: dict[tuple[bool, ...], list[str]] = {}
        heads = set(self.model.head_names)
        for name in self.model.slots.shapes:
            key = (name in heads, *(phase.moves(name) for phase in phases))
            parts.setdefault(key, []).append(name)
        return parts.values()

    def _with_data(self, maker: Maker, cohort: Sequence[Assignment], index: int) -> list[Phase]:
        """Return the cohort's phases with what ``maker`` makes from the adapters as they are."""
        for task, adapter in zip(cohort, self.model.slots.read(), strict=True):
            task.adapter = {**task.adapter, **adapter}  # shifts stay
        phases = [task.phases[index] for task in cohort]
        drafts = [
            Draft(task.client, task.round, index, task.adapter, phase.data, phase.constants)
            for task, phase in zip(cohort, phases, strict=True)
        ]
        made = maker(self.model, drafts)
        for task, each in zip(cohort, made, strict=True):
            task.predicted_tokens += each.tokens
            task.made.append(each.notes)
        return [replace(phase, data=m.examples) for phase, m in zip(phases, made, strict=True)]

    def _run_phase(self, cohort: Sequence[Assignment], phases: Sequence[Phase], index: int) -> None:
        slots, first = self.model.slots, phases[0]
        blocks = [block for block in slots.blocks if first.moves(block.names[0])]
        if not blocks:
            return
        slots.train_only(blocks)
        schedules = [
            schedule(
                phase.data,
                phase.steps,
                phase.batch_size or self.config.batch_size,
                self.seed,
                t.round,
                t.client,
                index,
            )
            for t, phase in zip(cohort, phases, strict=True)
        ]
        for phase, own in zip(phases, schedules, strict=True):
            self._inputs.prepare(phase.data, own.rows.reshape(-1))
        constants = self._constants(phases)
        stepper = self._steppers.fresh(blocks, [phase.rate for phase in phases])
        if first.goes_on and cohort[0].moments:
            optimiser.recall(stepper, blocks, [task.moments for task in cohort])
        batches = CohortBatches(schedules)
        history = torch.zeros(2, batches.steps, len(cohort), device=self.device)
        losses, norms = history
        ends = np.array([phase.steps for phase in phases])
        backwards = 1
        for step in range(batches.steps):
            for group in batches.step(step):
                backwards = self._backward(first.objective, group, constants, losses[step])
            for block in blocks:
                block.collect()
            norms[step] = optimiser.gradient_norms(blocks)
            if self.config.clip_norm is not None:
                optimiser.clip(blocks, norms[step], self.config.clip_norm)
            with optimiser.kept(blocks, np.flatnonzero(ends <= step).tolist()):
                stepper.step()
            if first.goes_on and (ends == step + 1).any():
                # Those who are done keep the moments of their own last step.
                now = optimiser.moments(stepper, blocks)
                for task, moments, end in zip(cohort, now, ends, strict=True):
                    if end == step + 1:
                        task.moments = {**task.moments, **moments}
        # One transfer for the whole phase: asking each step would make the device wait.
        losses, norms = history.cpu()
        finite = torch.isfinite(losses).all(0).tolist()
        for slot, (task, own) in enumerate(zip(cohort, schedules, strict=True)):
            task.losses += losses[: len(own.lengths), slot].tolist()
            task.gradient_norms += norms[: len(own.lengths), slot].tolist()
            task.tokens += own.tokens
            # A further pass back costs as much as one forward.
            task.predicted_tokens += (backwards - 1) * own.tokens
            task.diverged |= not finite[slot]

    def _backward(
        self, objective: Objective, group: Group, constants: Mapping[str, Tensor], losses: Tensor
    ) -> int:
        """Add the gradients of a group's losses, note the losses [slots]; return passes back."""
        all_slots = len(group.slots) == len(losses)
        indices = None if all_slots else torch.from_numpy(group.slots).to(self.device)
        own = constants
        if indices is not None:
            own = {name: value[indices] for name, value in constants.items()}
        with self.model.slots.only(indices):
            seen = Pass(self.model, self._inputs.batch(group), len(group.slots), own)
            mine = objective(seen)
            mine.sum().backward()
        if indices is None:
            losses.copy_(mine.detach())
        else:
            losses[indices] = mine.detach()
        return max(len(seen.taken), 1)

    def _constants(self, phases: Sequence[Phase]) -> dict[str, Tensor]:
        """Return the phases' constants, [slots, ...], on the device."""
        constants = {}
        for name in phases[0].constants:
            values = [phase.constants[name] for phase in phases]
            shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
            fitted = [v if list(v.shape) == shape else zero_padded(v, shape) for v in values]
            constants[name] = torch.stack(fitted).to(self.device)
        return constants

    def _step_tokens(self, task: Assignment) -> int:
        """Return about how many tokens a step of this task has."""
        return max((int(rows * length) for _, rows, length in self._effort(task)), default=1)

    def _effort(self, task: Assignment) -> list[tuple[int, int, float]]:
        """Return steps, rows of a batch and mean length of each phase."""
        usual = self.config.batch_size
        return [
            (
                p.steps,
                min(p.batch_size or usual, len(p.data)) * p.data.sequences,
                float(p.data.lengths().mean()),
            )
            for p in task.phases
        ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _recipe(task: Assignment) -> tuple[object, ...]:
    """Return what kind of work a task is: how long it takes, but for its size."""
    phases = ((p.objective, p.trains, p.goes_on, p.maker, *p.constants) for p in task.phases)
    return (frozenset(task.moments), frozenset(shifts(task.adapter)), *phases)


def _alike(tasks: Sequence[Assignment]) -> dict[tuple[object, ...], list[Assignment]]:
    groups: dict[tuple[object, ...], list[Assignment]] = {}
    for task in tasks:
        key = *_recipe(task), identity(task.adapter)
        groups.setdefault(key, []).append(task)
    return groups
