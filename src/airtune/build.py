"""From an experiment's description to the objects that run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from airtune import keyed
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.evaluation import Evaluator
from airtune.federation.in_process import InProcess
from airtune.federation.round import RoundRunner
from airtune.federation.session import Session
from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import Backbone, load_backbone
from airtune.learning.config import MachineConfig
from airtune.learning.data.examples import Examples, tokenise
from airtune.learning.data.partition import Shares, partition
from airtune.learning.data.sources import Table, load_table
from airtune.learning.learner import Learner
from airtune.learning.memory import keep_freed_memory
from airtune.methods.method import Method, Setup
from airtune.methods.registry import find
from airtune.radio.cell import Cell
from airtune.radio.compute import compute_seconds, flops

_DRAWS = 8  # batches from which the length of a client's batch is estimated


@dataclass(frozen=True)
class Parts:
    """The parts that tests and reports look into."""

    table: Table
    backbone: Backbone
    model: AdaptedModel
    learner: Learner
    method: Method
    clients: InProcess
    evaluator: Evaluator
    cell: Cell
    shares: Shares


def build(experiment: Experiment) -> Parts:
    """Load data and model, divide the data, set up method and cell."""
    seed = experiment.seed
    device = _device(experiment.machine)
    table = load_table(experiment.data, seed)
    shares = partition(table.train, experiment.clients, seed)
    backbone = load_backbone(experiment.model, table.task, len(table.classes) or None, device)
    limit = min(experiment.model.max_tokens, backbone.longest)
    model = AdaptedModel(backbone, experiment.adapter, table.task, seed)
    if experiment.machine.compile:
        model.compile()
    pool, test = (
        tokenise(frame, table.task, backbone.tokenizer, limit)
        for frame in (table.train, table.test)
    )
    data = _Selections(pool, shares)
    learner = Learner(model, experiment.train, seed, experiment.machine)
    setup = Setup(
        seed=seed,
        train=experiment.train,
        cell=experiment.cell,
        per_round=experiment.clients.per_round or experiment.clients.count,
        examples=shares.examples,
        compute_seconds=_PlannedSeconds(experiment, backbone, data),
        initial=model.initial,
    )
    method = find(experiment.method.name)(experiment.method, setup)
    clients = InProcess(method, learner, data, experiment.machine.client_states_gb * 1e9)
    evaluator = Evaluator(learner, clients, test, pool, _personal_tests(experiment, shares))
    cell = Cell(experiment.cell, len(shares), seed)
    return Parts(table, backbone, model, learner, method, clients, evaluator, cell, shares)


def session(parts: Parts, experiment: Experiment, folder: Path) -> Session:
    """Return the session that runs these parts, writing to ``folder``."""
    runner = RoundRunner(
        parts.method,
        parts.clients,
        parts.cell,
        parts.backbone.active_parameters,
    )
    return Session(
        folder,
        parts.method,
        parts.clients,
        runner,
        parts.evaluator,
        parts.table.task,
        experiment.machine.checkpoint_every,
    )


def _device(machine: MachineConfig) -> torch.device:
    keep_freed_memory()
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(machine.device)
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type in available and not available[device.type]():
        raise UserError(f"machine.device: there is no {device.type} device here; use cpu or auto.")
    return device


class _Selections:
    """Clients' data, selected from the pool when asked for."""

    def __init__(self, pool: Examples, shares: Shares) -> None:
        self._pool, self._shares = pool, shares

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[Examples]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, client: int) -> Examples:
        return self._pool.select(self._shares[client].train)


class _PlannedSeconds:
    """Expected seconds of local training in a round, worked out for clients when asked for."""

    def __init__(self, experiment: Experiment, backbone: Backbone, data: _Selections) -> None:
        self._experiment, self._backbone, self._data = experiment, backbone, data
        self._known: dict[int, float] = {}

    def __call__(self, clients: np.ndarray) -> np.ndarray:
        for client in map(int, clients):
            if client not in self._known:
                self._known[client] = self._seconds(client)
        return np.array([self._known[int(client)] for client in clients], dtype=np.float64)

    def _seconds(self, client: int) -> float:
        train, own = self._experiment.train, self._data[client]
        # Padding is computed too, so plan with the lengths of batches, not of examples.
        rows = min(train.batch_size, len(own))
        rng = keyed.generator(self._experiment.seed, "planned length", client)
        draws = rng.integers(len(own), size=(_DRAWS, rows))
        tokens = train.local_steps * rows * float(own.padded_lengths(draws).mean())
        work = flops("peft", self._backbone.active_parameters, tokens)
        return float(compute_seconds(self._experiment.cell.devices, client, work))


def _personal_tests(experiment: Experiment, shares: Shares) -> dict[int, np.ndarray]:
    """Return the test rows of the clients that are tested, by client."""
    count, wanted = len(shares), experiment.clients.tested
    tested = np.arange(count)
    if wanted < count:
        tested = np.sort(
            keyed.generator(experiment.seed, "tested clients").permutation(count)[:wanted]
        )
    return {int(client): shares[int(client)].test for client in tested}
