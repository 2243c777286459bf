"""How good the model is on the global test set, and each client's own on its own test part."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.federation.in_process import LocalClients
from airtune.learning.adapter import Adapter
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Learner
from airtune.learning.prediction import Evaluation
from airtune.learning.shifts import identity, without_shifts
from airtune.methods.method import Method
from airtune.methods.views import State

_APART = ("accuracy", "loss", "preference")  # have columns of their own, or are no measure
Personal = dict[int, dict[str, float]]  # scores by name, by client


@dataclass(frozen=True)
class Score:
    """Accuracy is the share of right classes, or of right next tokens of a causal model.

    ``judged`` is what the method itself measures of the server's model, by name. ``personal`` has
    the same of the clients' own models, by client, and ``accuracy`` and ``loss`` on their own test
    parts. ``personal_global_accuracy`` is the mean accuracy of the clients' own models on texts of
    the global test set; NaN where it is not asked for. What cannot be measured is NaN, too:
    accuracy where nothing has an answer.
    """

    accuracy: float
    loss: float
    judged: dict[str, float]
    personal: Personal
    personal_global_accuracy: float

    def mean(self, name: str) -> float:
        """Mean over the clients that have a score of this name; NaN without one."""
        found = [scores[name] for scores in self.personal.values() if name in scores]
        return float(np.mean(found)) if found else math.nan

    @property
    def scores(self) -> dict[str, float]:
        """What the method measures: of the server's model, and means over clients, personal_..."""
        found = (name for own in self.personal.values() for name in own)
        names = [name for name in dict.fromkeys(found) if name not in _APART]
        return {**self.judged, **{f"personal_{name}": self.mean(name) for name in names}}


class ServerEvaluator(ABC):
    """Evaluates the server's model, and has the clients' own evaluated where they are."""

    def __init__(self, method: Method, learner: Learner, test: Examples, clients: Examples) -> None:
        """``learner`` and ``test`` are the server's.

        ``clients`` are the same texts in the tokens of the first client's model.
        """
        self._method, self._learner = method, learner
        self._test, self.clients_test = test, clients

    def score(self, adapter: Adapter, broadcast: bytes, round: int, state: State) -> Score:
        """Score the server's ``adapter``, and what clients make of the ``broadcast``.

        ``state`` is the server's.
        """
        result = self._learner.evaluate(adapter, self._test)
        own, common = self._own(broadcast, round, state)
        return Score(
            result.accuracy(),
            result.mean_loss(),
            self._method.judge(state, self._learner, adapter, self._test),
            dict(sorted(own.items())),
            float(np.mean(common)) if common else math.nan,
        )

    @abstractmethod
    def _own(self, broadcast: bytes, round: int, state: State) -> tuple[Personal, list[float]]:
        """Return scores of clients' own models by client, and accuracies on common texts."""


class Evaluator(ServerEvaluator):
    """Evaluates the clients' models too, each distinct model once."""

    def __init__(
        self,
        method: Method,
        learner: Learner,
        clients: LocalClients,
        test: Examples,
        personal: Mapping[int, np.ndarray],
        common: np.ndarray,
    ) -> None:
        """``learner`` and ``test`` are the server's.

        ``personal`` are the private rows that test each client, of those who are to be tested;
        ``common`` the rows of the global test set on which their own models are tried as well.
        """
        super().__init__(method, learner, test, clients.kinds[0].test)
        self._clients, self._personal, self._common = clients, personal, common

    def _own(self, broadcast: bytes, round: int, state: State) -> tuple[Personal, list[float]]:
        own: Personal = {}
        common: list[float] = []
        for model, members in self._distinct(broadcast, round):
            kind = self._clients.kind(members[0])
            sizes = [len(self._personal[client]) for client in members]
            rows = np.concatenate([self._personal[client] for client in members])
            seen = kind.learner.evaluate(model, kind.pool.at(rows))
            judged = self._method.judge(state, kind.learner, model, kind.test)
            for client, end, size in zip(members, np.cumsum(sizes), sizes, strict=True):
                part = slice(end - size, end)
                mine = measures(seen, part)
                own[client] = {**mine, **self._method.judged_by(client, judged)}
            if self._common.size:
                tried = kind.learner.evaluate(model, kind.test.at(self._common))
                common += [tried.accuracy()] * len(members)
        return own, common

    def _distinct(self, broadcast: bytes, round: int) -> Iterable[tuple[Adapter, list[int]]]:
        """Return the models that clients make of the broadcast, and who has each."""
        models: dict[tuple[object, ...], tuple[Adapter, list[int]]] = {}
        for client, rows in self._personal.items():
            if not len(rows) and not self._method.judges:
                continue
            own = self._clients.personal_adapter(client, round, broadcast)
            # Shifts are of one broadcast: too large to be read for every client.
            alike = identity(own), _digest(without_shifts(own))
            key = id(self._clients.kind(client)), *alike
            models.setdefault(key, (own, []))[1].append(client)
        return models.values()


def _digest(adapter: Adapter) -> bytes:
    """Return a key by which clients with the same model are evaluated together."""
    digest = hashlib.blake2b()
    for tensor in adapter.values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.digest()


def measures(seen: Evaluation, part: slice) -> dict[str, float]:
    """Return accuracy and loss of some of the examples, without what cannot be measured."""
    found = {"accuracy": seen.accuracy(part), "loss": seen.mean_loss(part)}
    return {name: value for name, value in found.items() if not math.isnan(value)}
