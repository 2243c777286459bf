"""From an experiment's description to the objects that run it."""

from __future__ import annotations

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
from airtune.learning.config import MachineConfig, TrainConfig
from airtune.learning.data.examples import Examples, tokenise
from airtune.learning.data.partition import partition
from airtune.learning.data.sources import Table, load_table
from airtune.learning.learner import Learner
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
    client_names: list[str]


def build(experiment: Experiment) -> Parts:
    """Load data and model, divide the data, set up method and cell."""
    seed = experiment.seed
    device = _device(experiment.machine)
    table = load_table(experiment.data, seed)
    shares = partition(table.train, experiment.clients, seed)
    backbone = load_backbone(experiment.model, table.task, len(table.classes) or None, device)
    limit = min(experiment.model.max_tokens, backbone.longest)
    model = AdaptedModel(backbone, experiment.adapter, table.task, seed)
    pool, test = (
        tokenise(frame, table.task, backbone.tokenizer, limit)
        for frame in (table.train, table.test)
    )
    data = [pool.select(share.train) for share in shares]
    learner = Learner(model, experiment.train, seed, experiment.machine.cohort)
    setup = Setup(
        seed=seed,
        train=experiment.train,
        cell=experiment.cell,
        per_round=experiment.clients.per_round or experiment.clients.count,
        examples=np.array([len(rows) for rows in data]),
        compute_seconds=_planned_seconds(experiment, backbone, data),
        initial=model.initial,
    )
    method = find(experiment.method.name)(experiment.method, setup)
    clients = InProcess(method, learner, data)
    evaluator = Evaluator(learner, clients, test, pool, [share.test for share in shares])
    cell = Cell(experiment.cell, len(shares), seed)
    names = [share.name for share in shares]
    return Parts(table, backbone, model, learner, method, clients, evaluator, cell, names)


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
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(machine.device)
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type in available and not available[device.type]():
        raise UserError(f"machine.device: there is no {device.type} device here; use cpu or auto.")
    return device


def _planned_seconds(
    experiment: Experiment, backbone: Backbone, data: list[Examples]
) -> np.ndarray:
    """Return each client's expected seconds of local training in a round, [clients]."""
    train: TrainConfig = experiment.train
    tokens = []
    for client, own in enumerate(data):
        # Padding is computed too, so plan with the lengths of batches, not of examples.
        rows = min(train.batch_size, len(own))
        rng = keyed.generator(experiment.seed, "planned length", client)
        draws = [own.padded_length(rng.integers(len(own), size=rows)) for _ in range(_DRAWS)]
        tokens.append(train.local_steps * rows * float(np.mean(draws)))
    work = flops("peft", backbone.active_parameters, tokens)
    return compute_seconds(experiment.cell.devices, np.arange(len(data)), work)
