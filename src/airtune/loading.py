"""The models of an experiment and its texts in their tokens, each loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pandas as pd
import torch

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.in_process import Kind
from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import Backbone, load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig, Task
from airtune.learning.data.examples import Examples, tokenise
from airtune.learning.data.partition import Share
from airtune.learning.data.sources import Table
from airtune.learning.learner import Learner
from airtune.learning.memory import keep_freed_memory
from airtune.learning.prototypes import with_prototypes


class Shares(Protocol):
    """Who holds which rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, client: int, /) -> Share: ...


class Models:
    """The models of an experiment and its texts in their tokens, each loaded once."""

    def __init__(
        self,
        experiment: Experiment,
        table: Table,
        shots: pd.DataFrame,
        device: torch.device,
        learns: type[Learner] = Learner,
    ) -> None:
        self._experiment, self._table, self._device = experiment, table, device
        self._learns = learns
        self._frames = {
            "train": table.train,
            "test": table.test,
            "public": table.public,
            "shots": shots,
        }
        self._backbones: dict[str, Backbone] = {}
        self._learners: dict[tuple[str, str], Learner] = {}
        self._tokens: dict[tuple[str, int, str], Examples] = {}

    @property
    def task(self) -> Task:
        """What the texts are learned for."""
        return self._table.task

    def learner(self, model: ModelConfig, adapter: AdapterConfig) -> Learner:
        """Return what trains such adapters on such a model."""
        key = model.model_dump_json(), adapter.model_dump_json()
        if key not in self._learners:
            experiment, task = self._experiment, self._table.task
            adapted = AdaptedModel(self._backbone(model), adapter, task, experiment.seed)
            if experiment.machine.compile:
                adapted.compile()
            self._learners[key] = self._learns(
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


def chosen_device(machine: MachineConfig) -> torch.device:
    """Return the device of torch; raise UserError where it is not there."""
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
