"""From an experiment's description to the objects that run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from airtune import keyed
from airtune.experiment import Experiment
from airtune.federation.evaluation import Evaluator, ServerEvaluator
from airtune.federation.in_process import InProcess, Kind
from airtune.federation.interface import Clients, Federation
from airtune.federation.measuring import MeasuredCell
from airtune.federation.round import RoundRunner
from airtune.federation.secure.setup import sums
from airtune.federation.session import Session
from airtune.fitting import (
    check_data,
    check_lengths,
    check_links,
    check_models,
    check_security,
    check_tokenizers,
    shots_asked,
)
from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import Backbone
from airtune.learning.config import ModelConfig
from airtune.learning.data.examples import Examples
from airtune.learning.data.partition import Shares, partition
from airtune.learning.data.sources import Table, load_table
from airtune.learning.learner import Learner
from airtune.learning.prototypes import take_shots
from airtune.loading import Models, chosen_device
from airtune.loading import Shares as Held
from airtune.methods.method import Method
from airtune.methods.registry import find
from airtune.methods.views import Setup
from airtune.planned_seconds import PlannedSeconds, passes
from airtune.radio.cell import Cell
from airtune.scheduling.selector import Selector

if TYPE_CHECKING:
    from airtune.federation.secure.rounds import SecureSums


@dataclass(frozen=True)
class Core:
    """What a server and its clients have in common, wherever each of them is.

    ``kinds`` are those of the clients' models; ``learner``, ``public`` and ``test`` the server's.
    """

    kinds: Sequence[Kind]
    learner: Learner
    public: Examples
    test: Examples

    @property
    def width(self) -> int:
        """Classes, or entries of the vocabulary, that all models have."""
        learners = (self.learner, *(kind.learner for kind in self.kinds))
        return min(each.model.width for each in learners)


@dataclass(frozen=True)
class ServerParts:
    """The server's parts, which reports look into; backbone, model and learner are its own."""

    table: Table
    backbone: Backbone
    model: AdaptedModel
    learner: Learner
    method: Method
    clients: Clients
    evaluator: ServerEvaluator
    cell: Cell | MeasuredCell
    shares: Shares
    kinds: Sequence[Kind]
    sums: SecureSums | None


@dataclass(frozen=True)
class Parts(ServerParts):
    """All parts of a run in one process."""

    clients: InProcess
    evaluator: Evaluator


def build(
    experiment: Experiment, table: Table | None = None, learns: type[Learner] = Learner
) -> Parts:
    """Load data and models, divide the data, set up method and cell.

    ``table`` stands for the data that the experiment names, ``learns`` for what trains.
    """
    seed, method_class = experiment.seed, find(experiment.method.name)
    check_models(experiment, method_class)
    check_security(experiment, method_class)
    check_links(experiment)
    device = chosen_device(experiment.machine)
    if table is None:
        table = load_table(experiment.data, seed, method_class.needs_public)
    check_data(table, experiment.method.name, method_class)
    table, shots = take_shots(table, shots_asked(experiment), seed)
    shares = partition(table.train, experiment.clients, seed)
    parts = core(experiment, Models(experiment, table, shots, device, learns), shares)
    seconds = PlannedSeconds(experiment, parts.kinds)
    method = method_class(
        experiment.method, setup(experiment, parts, shares.examples, seconds, parts.width)
    )
    clients = InProcess(method, parts.kinds, experiment.machine.client_states_gb * 1e9)
    tested = tested_clients(experiment, len(shares))
    evaluator = Evaluator(
        method,
        parts.learner,
        clients,
        parts.test,
        {client: shares[client].test for client in tested},
        _common_tests(experiment, len(parts.test)),
    )
    model = parts.learner.model
    return Parts(
        table,
        model.backbone,
        model,
        parts.learner,
        method,
        clients,
        evaluator,
        Cell(experiment.cell, len(shares), seed, experiment.clients.asked),
        shares,
        parts.kinds,
        sums(experiment.security, method),
    )


def core(experiment: Experiment, models: Models, shares: Held) -> Core:
    """Return models and texts of the server and of every kind of client."""
    kinds = [models.kind(each, experiment.adapter, shares) for each in client_models(experiment)]
    own = experiment.server
    server_model, server_adapter = own.model or experiment.model, own.adapter or experiment.adapter
    learner = models.learner(server_model, server_adapter)
    public = models.tokens(server_model, "public")
    if models.task == "causal":
        check_tokenizers([learner, *(kind.learner for kind in kinds)])
        check_lengths([kind.pool.corpus.cap for kind in kinds] + [public.corpus.cap])
    return Core(kinds, learner, public, models.tokens(server_model, "test"))


def client_models(experiment: Experiment) -> Sequence[ModelConfig]:
    """Return the clients' models: client i has number i mod count."""
    return experiment.clients.models or (experiment.model,)


def setup(
    experiment: Experiment,
    parts: Core,
    examples: np.ndarray,
    seconds: PlannedSeconds,
    width: int,
) -> Setup:
    """Return what a method knows of the whole run; ``examples`` [clients] are what all learn from.

    ``width`` is that of all models together, of which a device has one.
    """
    clients = experiment.clients
    asked = clients.asked
    selector = Selector(
        clients.selection, asked, clients.fairness_rounds, experiment.cell, experiment.seed
    )
    return Setup(
        seed=experiment.seed,
        train=experiment.train,
        cell=experiment.cell,
        per_round=asked,
        selector=selector,
        examples=examples,
        compute_seconds=seconds,
        initial=parts.kinds[0].learner.model.initial,
        width=width,
        server=parts.learner,
        models=[kind.learner for kind in parts.kinds],
        public=parts.public,
        texts=parts.kinds[0].pool,
    )


def rounds(parts: ServerParts, federation: Federation | None = None) -> RoundRunner:
    """Return what runs rounds of these parts, with their own clients or through ``federation``."""
    costs = [passes(kind.learner.model, parts.cell.config) for kind in parts.kinds]
    return RoundRunner(parts.method, federation or parts.clients, parts.cell, costs, parts.sums)


def session(parts: ServerParts, experiment: Experiment, folder: Path) -> Session:
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


def tested_clients(experiment: Experiment, count: int) -> list[int]:
    """Return the clients whose own models are tested, in order."""
    wanted = experiment.clients.tested
    if wanted >= count:
        return list(range(count))
    drawn = keyed.generator(experiment.seed, "tested clients").permutation(count)
    return sorted(map(int, drawn[:wanted]))


def _common_tests(experiment: Experiment, count: int) -> np.ndarray:
    """Return the rows of the global test set on which clients' own models are tried."""
    drawn = keyed.generator(experiment.seed, "common test").permutation(count)
    return np.sort(drawn[: experiment.clients.global_texts])
