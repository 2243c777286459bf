"""From an experiment's description to the objects that run it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from airtune import keyed
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.evaluation import Evaluator
from airtune.federation.in_process import InProcess, Kind
from airtune.federation.round import RoundRunner
from airtune.federation.session import Session
from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import Backbone, load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig
from airtune.learning.data.examples import Examples, tokenise
from airtune.learning.data.partition import Shares, partition
from airtune.learning.data.sources import Table, load_table
from airtune.learning.learner import Learner
from airtune.learning.memory import keep_freed_memory
from airtune.learning.prototypes import take_shots, with_prototypes
from airtune.methods.method import Method, Setup, Work
from airtune.methods.registry import find
from airtune.radio.cell import Cell
from airtune.radio.compute import Passes, compute_seconds
from airtune.radio.config import CellConfig

_DRAWS = 8  # batches from which the length of a client's batch is estimated


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


def build(experiment: Experiment, table: Table | None = None) -> Parts:
    """Load data and models, divide the data, set up method and cell.

    ``table`` stands for the data that the experiment names.
    """
    seed, method_class = experiment.seed, find(experiment.method.name)
    _check_models(experiment, method_class)
    device = _device(experiment.machine)
    if table is None:
        table = load_table(experiment.data, seed, method_class.needs_public)
    _check_data(table, experiment.method.name, method_class)
    table, shots = take_shots(table, _shots(experiment), seed)
    shares = partition(table.train, experiment.clients, seed)
    models = _Models(experiment, table, shots, device)
    kinds = [
        models.kind(config, experiment.adapter, shares)
        for config in experiment.clients.models or (experiment.model,)
    ]
    own = experiment.server
    server_model, server_adapter = own.model or experiment.model, own.adapter or experiment.adapter
    learner = models.learner(server_model, server_adapter)
    public = models.tokens(server_model, "public")
    if table.task == "causal":
        _check_tokenizers([learner, *(kind.learner for kind in kinds)])
        _check_lengths([kind.pool.corpus.cap for kind in kinds] + [public.corpus.cap])
    setup = Setup(
        seed=seed,
        train=experiment.train,
        cell=experiment.cell,
        per_round=experiment.clients.per_round or experiment.clients.count,
        examples=shares.examples,
        compute_seconds=_PlannedSeconds(experiment, kinds),
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
    cell = Cell(experiment.cell, len(shares), seed)
    backbone = learner.model.backbone
    return Parts(table, backbone, learner.model, learner, method, clients, evaluator, cell, shares)


def session(parts: Parts, experiment: Experiment, folder: Path) -> Session:
    """Return the session that runs these parts, writing to ``folder``."""
    runner = RoundRunner(
        parts.method,
        parts.clients,
        parts.cell,
        [passes(kind.learner.model, parts.cell.config) for kind in parts.clients.kinds],
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


def passes(model: AdaptedModel, cell: CellConfig) -> Passes:
    """Return what a token of a model costs on a device.

    That layers below are looked up is this computer's saving: a device is charged for them.
    """
    whole = model.backbone.active_parameters
    if cell.backward == "all":
        return Passes(whole, whole)
    below = 0 if model.prefix is None else model.prefix.parameters
    shapes = model.slots.shapes.values() if model.config.kind == "blocks" else ()
    return Passes(whole, whole - below, sum(math.prod(shape) for shape in shapes))


def _shots(experiment: Experiment) -> int:
    """Return how many labelled examples of each class the models' heads are made of."""
    models = [*(experiment.clients.models or [experiment.model])]
    models.append(experiment.server.model or experiment.model)
    counts = {model.prototypes for model in models if model.prototypes is not None}
    if len(counts) > 1:
        raise UserError(
            f"model.prototypes: models ask for {sorted(counts)} examples of each class; give one "
            "number, as all know the same examples."
        )
    return counts.pop() if counts else 0


def _check_data(table: Table, name: str, method: type[Method]) -> None:
    """Refuse data that a method cannot learn from."""
    if table.preferences and not method.learns_preferences:
        raise UserError(
            f"data.chosen: '{name}' would learn rejected answers too; use pwff or pfit, or give "
            "the chosen ones as data.response."
        )
    if table.prompts_only and not method.answers_prompts:
        raise UserError(
            f"data: '{name}' learns given answers, and there are prompts alone; use pwff or pfit, "
            "which answer them, or name a column of answers as data.response."
        )
    if method.answers_prompts and (table.task != "causal" or not table.prompted):
        raise UserError(
            f"data: '{name}' answers prompts, and these texts have none; use data.name: topics, or "
            "name the prompts' column as data.prompt."
        )


def _check_models(experiment: Experiment, method: type[Method]) -> None:
    """Refuse unequal models where adapters travel."""
    if method.own_models:
        return
    for key, given in (
        ("clients.models", experiment.clients.models),
        ("server.model", experiment.server.model),
        ("server.adapter", experiment.server.adapter),
    ):
        if given:
            raise UserError(
                f"{key}: clients of '{experiment.method.name}' send their adapters, so all have "
                "the one model of the section model; leave it out, or name a method that distils."
            )


def _check_tokenizers(learners: Sequence[Learner]) -> None:
    """Refuse models whose tokens differ: their logits are about different things."""
    first, *others = (learner.model.backbone for learner in learners)
    for other in others:
        if other.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise UserError(
                f"clients.models: '{first.name}' and '{other.name}' have different tokenizers, so "
                "their token logits cannot be combined; name models with one vocabulary."
            )


def _check_lengths(limits: Sequence[int]) -> None:
    """Refuse models that cut texts at different places: they predict different tokens."""
    if len(set(limits)) > 1:
        raise UserError(
            f"model.max_tokens: models read texts up to {sorted(set(limits))} tokens, so their "
            "token logits are about different places; give all of them the smallest."
        )


class _Models:
    """The models of an experiment and its texts in their tokens, each loaded once."""

    def __init__(
        self, experiment: Experiment, table: Table, shots: pd.DataFrame, device: torch.device
    ) -> None:
        self._experiment, self._table, self._device = experiment, table, device
        self._frames = {
            "train": table.train,
            "test": table.test,
            "public": table.public,
            "shots": shots,
        }
        self._backbones: dict[str, Backbone] = {}
        self._learners: dict[tuple[str, str], Learner] = {}
        self._tokens: dict[tuple[str, int, str], Examples] = {}

    def learner(self, model: ModelConfig, adapter: AdapterConfig) -> Learner:
        """Return what trains such adapters on such a model."""
        key = model.model_dump_json(), adapter.model_dump_json()
        if key not in self._learners:
            experiment, task = self._experiment, self._table.task
            adapted = AdaptedModel(self._backbone(model), adapter, task, experiment.seed)
            if experiment.machine.compile:
                adapted.compile()
            self._learners[key] = Learner(
                adapted, experiment.train, experiment.seed, experiment.machine
            )
        return self._learners[key]

    def kind(self, model: ModelConfig, adapter: AdapterConfig, shares: Shares) -> Kind:
        """Return what clients with such a model compute with."""
        pool = self.tokens(model, "train")
        data = _Selections(pool, shares)
        public, test = self.tokens(model, "public"), self.tokens(model, "test")
        return Kind(self.learner(model, adapter), data, pool, public, test)

    def tokens(self, model: ModelConfig, part: str) -> Examples:
        """Return the texts of a part of the data as this model reads them."""
        return self._tokenised(self._backbone(model), model, part)

    def _tokenised(self, backbone: Backbone, model: ModelConfig, part: str) -> Examples:
        limit = min(model.max_tokens, backbone.longest)
        key = backbone.source, limit, part
        if key not in self._tokens:
            frame, task = self._frames[part], self._table.task
            self._tokens[key] = tokenise(frame, task, backbone.tokenizer, limit)
        return self._tokens[key]

    def _backbone(self, model: ModelConfig) -> Backbone:
        key = model.model_dump_json()
        if key not in self._backbones:
            task, classes = self._table.task, len(self._table.classes)
            backbone = load_backbone(model, task, classes or None, self._device)
            if model.prototypes is not None:
                shots = self._tokenised(backbone, model, "shots")
                backbone = with_prototypes(backbone, shots, classes)
            self._backbones[key] = backbone
        return self._backbones[key]


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
        return self._pool.at(self._shares[client].train)


class _PlannedSeconds:
    """Expected seconds of computing in a round, worked out for clients when asked for."""

    def __init__(self, experiment: Experiment, kinds: Sequence[Kind]) -> None:
        self._experiment, self._kinds = experiment, kinds
        self._known: dict[tuple[int, Work], float] = {}

    def __call__(self, clients: np.ndarray, work: Work) -> np.ndarray:
        for client in map(int, clients):
            if (client, work) not in self._known:
                self._known[client, work] = self._seconds(client, work)
        return np.array([self._known[int(client), work] for client in clients], dtype=np.float64)

    def _seconds(self, client: int, work: Work) -> float:
        kind = self._kinds[client % len(self._kinds)]
        size = self._experiment.train.batch_size
        trained = work.private_steps * self._batch_tokens(client, kind.data[client], size)
        if work.public_steps:
            trained += work.public_steps * self._batch_tokens(
                client, kind.public, work.public_batch_size
            )
        predicted = 0.0
        if work.predicted:
            lengths = kind.public.corpus.padded(kind.public.lengths())
            predicted = work.predicted * float(lengths.mean())
        costs = passes(kind.learner.model, self._experiment.cell)
        total = costs.training(trained + work.made_tokens)
        total += costs.inference(predicted + work.drawn_tokens)
        return float(compute_seconds(self._experiment.cell.devices, client, total))

    def _batch_tokens(self, client: int, data: Examples, batch_size: int) -> float:
        # Padding is computed too, so plan with the lengths of batches, not of examples.
        rows = min(batch_size, len(data))
        rng = keyed.generator(self._experiment.seed, "planned length", client)
        draws = rng.integers(len(data), size=(_DRAWS, rows))
        return rows * data.sequences * float(data.padded_lengths(draws).mean())


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
