"""Cohort training and evaluation: the place where gradients are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from airtune import keyed
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.config import TrainConfig
from airtune.learning.data.examples import Examples
from airtune.learning.phase import Objective, Phase, token_losses

_EVALUATION_ROWS = 64
_TOKENS_PER_PASS = {"cpu": 2048, "cuda": 65536, "mps": 16384}


@dataclass
class Assignment:
    """One client's work of a round; ``adapter`` is replaced by what was learned."""

    client: int
    round: int
    adapter: Adapter
    phases: list[Phase]
    losses: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def loss(self) -> float | None:
        """Mean of all steps, None without one."""
        return sum(self.losses) / len(self.losses) if self.losses else None

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite."""
        return not all(math.isfinite(loss) for loss in self.losses)


@dataclass(frozen=True)
class Evaluation:
    """Per example: mean loss, number of predictions, and how many of them were right; all [n]."""

    loss: np.ndarray
    predictions: np.ndarray
    correct: np.ndarray

    def accuracy(self, rows: np.ndarray | slice = slice(None)) -> float:
        """Share of right predictions (classes, or next tokens)."""
        return float(self.correct[rows].sum() / max(self.predictions[rows].sum(), 1))

    def mean_loss(self, rows: np.ndarray | slice = slice(None)) -> float:
        """Mean cross-entropy of a prediction, in nats."""
        return float(self.loss[rows].sum() / max(self.predictions[rows].sum(), 1))


class Learner:
    """Trains K clients' adapters side by side; K = 1 is the real device."""

    def __init__(
        self, model: AdaptedModel, config: TrainConfig, seed: int, cohort: int | None = None
    ) -> None:
        self.model, self.config, self.seed, self.cohort = model, config, seed, cohort
        self.device = next(model.module.parameters()).device

    def train(self, tasks: Sequence[Assignment]) -> None:
        """Run every task's phases; tasks whose phases are alike share forward passes."""
        for cohort in self._cohorts(tasks):
            self.model.slots.load([task.adapter for task in cohort])
            for index in range(len(cohort[0].phases)):
                self._run_phase(cohort, index)
            for task, adapter in zip(cohort, self.model.slots.read(), strict=True):
                task.adapter = adapter

    def evaluate(self, adapter: Adapter, examples: Examples) -> Evaluation:
        """Evaluate one adapter on examples, in passes of rows of similar length."""
        self.model.slots.load([adapter])
        loss, predictions, correct = (np.zeros(len(examples)) for _ in range(3))
        with torch.inference_mode():
            for positions, batch in examples.batches_by_length(_EVALUATION_ROWS):
                batch = self._to_device(batch)
                logits = self.model.logits(batch)
                losses, counted = token_losses(logits, batch["labels"])
                loss[positions] = losses.double().cpu().numpy()
                predictions[positions] = counted.cpu().numpy()
                correct[positions] = _correct(logits, batch["labels"]).cpu().numpy()
        return Evaluation(loss, predictions, correct)

    def _cohorts(self, tasks: Sequence[Assignment]) -> Iterable[list[Assignment]]:
        alike: dict[tuple[object, ...], list[Assignment]] = {}
        for task in tasks:
            recipe = tuple((phase.objective, phase.trains) for phase in task.phases)
            alike.setdefault(recipe, []).append(task)
        for group in alike.values():
            size = self._cohort_size(group)
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def _cohort_size(self, tasks: Sequence[Assignment]) -> int:
        if not self.model.slots.stacked:
            return 1
        if self.cohort is not None:
            return self.cohort
        lengths = [phase.data.lengths().mean() for task in tasks for phase in task.phases]
        step_tokens = self.config.batch_size * float(np.mean(lengths or [1.0]))
        return max(1, int(_TOKENS_PER_PASS[self.device.type] / step_tokens))

    def _run_phase(self, cohort: Sequence[Assignment], index: int) -> None:
        phases = [task.phases[index] for task in cohort]
        trained = {
            name: parameter
            for name, parameter in self.model.slots.parameters.items()
            if any(fnmatchcase(name, pattern) for pattern in phases[0].trains)
        }
        for name, parameter in self.model.slots.parameters.items():
            parameter.requires_grad_(name in trained)
        optimiser = self._optimiser(trained)
        streams = [
            _Batches(phase.data, self.config.batch_size, self.seed, task, index)
            for task, phase in zip(cohort, phases, strict=True)
        ]
        history: list[Tensor] = []
        longest = max(phase.steps for phase in phases)
        for step in range(longest):
            running = [slot for slot, phase in enumerate(phases) if step < phase.steps]
            finished = [slot for slot, phase in enumerate(phases) if step >= phase.steps]
            batches = {slot: streams[slot].next() for slot in running}
            losses = torch.full((len(cohort),), math.nan, device=self.device)
            optimiser.zero_grad()
            for slots in _same_shape(batches):
                losses[slots] = self._backward(phases[0].objective, slots, batches, len(cohort))
            for slot, batch in batches.items():
                cohort[slot].tokens += batch["input_ids"].numel()
            self._clip(trained.values())
            with _kept(trained.values(), finished if self.model.slots.stacked else []):
                optimiser.step()
            history.append(losses)
        if history:
            # One transfer for the whole phase: asking each step would make the device wait.
            for task, phase, own in zip(cohort, phases, torch.stack(history, 1).cpu(), strict=True):
                task.losses += own[: phase.steps].tolist()

    def _backward(
        self,
        objective: Objective,
        slots: list[int],
        batches: Mapping[int, Mapping[str, Tensor]],
        count: int,
    ) -> Tensor:
        """Add the gradients of these slots' losses; return the losses [len(slots)]."""
        keys = batches[slots[0]].keys()
        batch = self._to_device({k: torch.cat([batches[s][k] for s in slots]) for k in keys})
        indices = torch.tensor(slots, device=self.device) if len(slots) < count else None
        with self.model.slots.only(indices):
            losses = objective(self.model, batch, len(slots))
            losses.sum().backward()
        return losses.detach()

    def _clip(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Scale each slot's gradient to at most the norm bound, by that slot's own norm."""
        if self.config.clip_norm is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not self.model.slots.stacked:
            gradients = [gradient.unsqueeze(0) for gradient in gradients]
        # [slots, tensors] reduced along rows: then a slot's sum has one order whatever the cohort.
        parts = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients], dim=1)
        norms = parts.norm(dim=1)
        scale = (self.config.clip_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))

    def _optimiser(self, trained: Mapping[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        heads = set(self.model.head_names)
        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in trained.items() if n not in heads]},
            {
                "params": [p for n, p in trained.items() if n in heads],
                "lr": self.config.head_learning_rate,
            },
        ]
        kind = torch.optim.AdamW if self.config.optimiser == "adamw" else torch.optim.SGD
        return kind(
            [group for group in groups if group["params"]],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    def _to_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.device) for key, value in batch.items()}


class _Batches:
    """A client's batches of one phase: reshuffled passes over its rows, laid end to end."""

    def __init__(self, data: Examples, size: int, seed: int, task: Assignment, phase: int) -> None:
        self._data, self._size = data, min(size, len(data))
        self._rng = keyed.generator(seed, "batches", task.round, task.client, phase)
        self._left = np.empty(0, dtype=np.int64)

    def next(self) -> dict[str, Tensor]:
        """Return the next batch; a client with fewer rows than the batch size gives them all."""
        while len(self._left) < self._size:
            self._left = np.concatenate([self._left, self._rng.permutation(len(self._data))])
        positions, self._left = self._left[: self._size], self._left[self._size :]
        return self._data.batch(positions)


def _same_shape(batches: Mapping[int, Mapping[str, Tensor]]) -> Iterable[list[int]]:
    """Group slots whose batches have the same rows and length: they can share a pass unpadded.

    Padding one client to another's length would change the order of its floating-point sums.
    """
    groups: dict[torch.Size, list[int]] = {}
    for slot, batch in batches.items():
        groups.setdefault(batch["input_ids"].shape, []).append(slot)
    return groups.values()


@contextmanager
def _kept(parameters: Iterable[torch.nn.Parameter], slots: list[int]) -> Iterator[None]:
    """Within, these slots of the parameters keep their values: their clients are done."""
    saved = [(p, p.detach()[slots].clone()) for p in parameters] if slots else []
    yield
    with torch.no_grad():
        for parameter, values in saved:
            parameter[slots] = values


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many predictions of each row are right, [rows]."""
    if logits.dim() == 2:
        return (logits.argmax(1) == labels).double()
    return (logits[:, :-1].argmax(-1) == labels[:, 1:]).double().sum(1)
