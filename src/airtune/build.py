"""From an experiment's description to the objects that run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from airtune import keyed
from airtune.experiment import Experiment
from airtune.federation.evaluation import Evaluator
from airtune.federation.in_process import InProcess
from airtune.federation.interface import Federation
from airtune.federation.round import RoundRunner
from airtune.federation.session import Session
from airtune.fitting import (
    check_data,
    check_lengths,
    check_models,
    check_tokenizers,
    shots_asked,
)
from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import Backbone
from airtune.learning.data.partition import Shares, partition
from airtune.learning.data.sources import Table, load_table
from airtune.learning.learner import Learner
from airtune.learning.prototypes import take_shots
from airtune.loading import Models, chosen_device
from airtune.methods.method import Method
from airtune.methods.registry import find
from airtune.methods.views import Setup
from airtune.planned_seconds import PlannedSeconds, passes
from airtune.radio.cell import Cell
from airtune.scheduling.selector import Selector


@dataclass(frozen=True)
class Parts:
    """The parts that tests and reports look into; backbone, model and learner are the server's."""

    table: Table
    backbone: Backbone
    model: AdaptedModel
    learner: Learner
    method: Method
    clients: InProcess
    evaluator: Evaluator
    cell: Cell
    shares: Shares


def build(
    experiment: Experiment, table: Table | None = None, learns: type[Learner] = Learner
) -> Parts:
    """Load data and models, divide the data, set up method and cell.

    ``table`` stands for the data that the experiment names, ``learns`` for what trains.
    """
    seed, method_class = experiment.seed, find(experiment.method.name)
    check_models(experiment, method_class)
    device = chosen_device(experiment.machine)
    if table is None:
        table = load_table(experiment.data, seed, method_class.needs_public)
    check_data(table, experiment.method.name, method_class)
    table, shots = take_shots(table, shots_asked(experiment), seed)
    shares = partition(table.train, experiment.clients, seed)
    models = Models(experiment, table, shots, device, learns)
    kinds = [
        models.kind(config, experiment.adapter, shares)
        for config in experiment.clients.models or (experiment.model,)
    ]
    own = experiment.server
    server_model, server_adapter = own.model or experiment.model, own.adapter or experiment.adapter
    learner = models.learner(server_model, server_adapter)
    public = models.tokens(server_model, "public")
    if table.task == "causal":
        check_tokenizers([learner, *(kind.learner for kind in kinds)])
        check_lengths([kind.pool.corpus.cap for kind in kinds] + [public.corpus.cap])
    asked = experiment.clients.per_round or experiment.clients.count
    setup = Setup(
        seed=seed,
        train=experiment.train,
        cell=experiment.cell,
        per_round=asked,
        selector=Selector(
            experiment.clients.selection,
            asked,
            experiment.clients.fairness_rounds,
            experiment.cell,
            seed,
        ),
        examples=shares.examples,
        compute_seconds=PlannedSeconds(experiment, kinds),
        initial=kinds[0].learner.model.initial,
        width=min(each.model.width for each in (learner, *(kind.learner for kind in kinds))),
        server=learner,
        models=[kind.learner for kind in kinds],
        public=public,
        texts=kinds[0].pool,
    )
    method = method_class(experiment.method, setup)
    clients = InProcess(method, kinds, experiment.machine.client_states_gb * 1e9)
    test = models.tokens(server_model, "test")
    own_tests, common = _personal_tests(experiment, shares), _common_tests(experiment, len(test))
    evaluator = Evaluator(method, learner, clients, test, own_tests, common)
    cell = Cell(experiment.cell, len(shares), seed, asked)
    backbone = learner.model.backbone
    return Parts(table, backbone, learner.model, learner, method, clients, evaluator, cell, shares)


def rounds(parts: Parts, federation: Federation | None = None) -> RoundRunner:
    """Return what runs rounds of these parts, with their own clients or through ``federation``."""
    costs = [passes(kind.learner.model, parts.cell.config) for kind in parts.clients.kinds]
    return RoundRunner(parts.method, federation or parts.clients, parts.cell, costs)


def session(parts: Parts, experiment: Experiment, folder: Path) -> Session:
    """Return the session that runs these parts, writing to ``folder``."""
    return Session(
        folder,
        parts.method,
        parts.clients,
        rounds(parts),
        parts.evaluator,
        parts.table.task,
        experiment.machine.checkpoint_every,
    )


def _personal_tests(experiment: Experiment, shares: Shares) -> dict[int, np.ndarray]:
    """Return the test rows of the clients that are tested, by client."""
    count, wanted = len(shares), experiment.clients.tested
    tested = np.arange(count)
    if wanted < count:
        tested = np.sort(
            keyed.generator(experiment.seed, "tested clients").permutation(count)[:wanted]
        )
    return {int(client): shares[int(client)].test for client in tested}


def _common_tests(experiment: Experiment, count: int) -> np.ndarray:
    """Return the rows of the global test set on which clients' own models are tried."""
    drawn = keyed.generator(experiment.seed, "common test").permutation(count)
    return np.sort(drawn[: experiment.clients.global_texts])
