"""How good the model is on the global test set, and each client's own on its own test part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.federation.in_process import InProcess
from airtune.learning.adapter import Adapter
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Learner
from airtune.learning.shifts import identity, without_shifts


@dataclass(frozen=True)
class Score:
    """Accuracy is the share of right classes, or of right next tokens of a causal model.

    ``personal`` has accuracies of clients on their own test parts, by client, ``personal_loss`` the
    mean over clients of their losses there. ``personal_global_accuracy`` is the mean accuracy of
    the clients' own models on texts of the global test set; NaN where it is not asked for.
    """

    accuracy: float
    loss: float
    personal: dict[int, float]
    personal_loss: float
    personal_global_accuracy: float

    @property
    def personal_accuracy(self) -> float:
        """Mean over clients."""
        return float(np.mean(list(self.personal.values()))) if self.personal else math.nan


class Evaluator:
    """Evaluates the server's model and the clients' personal ones, each distinct model once."""

    def __init__(
        self,
        learner: Learner,
        clients: InProcess,
        test: Examples,
        personal: Mapping[int, np.ndarray],
        common: np.ndarray,
    ) -> None:
        """``learner`` and ``test`` are the server's.

        ``personal`` are the private rows that test each client, of those who are to be tested;
        ``common`` the rows of the global test set on which their own models are tried as well.
        """
        self._learner, self._clients = learner, clients
        self._test, self._personal, self._common = test, personal, common

    def score(self, adapter: Adapter, broadcast: bytes, round: int) -> Score:
        """Score the server's ``adapter``, and what clients make of the ``broadcast``."""
        result = self._learner.evaluate(adapter, self._test)
        own: dict[int, float] = {}
        losses, common = [], []
        for model, members in self._distinct(broadcast, round):
            kind = self._clients.kind(members[0])
            sizes = [len(self._personal[client]) for client in members]
            rows = np.concatenate([self._personal[client] for client in members])
            seen = kind.learner.evaluate(model, kind.pool.select(rows))
            for client, end, size in zip(members, np.cumsum(sizes), sizes, strict=True):
                own[client] = seen.accuracy(slice(end - size, end))
                losses.append(seen.mean_loss(slice(end - size, end)))
            if self._common.size:
                tried = kind.learner.evaluate(model, kind.test.select(self._common))
                common += [tried.accuracy()] * len(members)
        return Score(
            result.accuracy(),
            result.mean_loss(),
            dict(sorted(own.items())),
            float(np.mean(losses)) if losses else math.nan,
            float(np.mean(common)) if common else math.nan,
        )

    def _distinct(self, broadcast: bytes, round: int) -> Iterable[tuple[Adapter, list[int]]]:
        """Return the models that clients make of the broadcast, and who has each."""
        models: dict[tuple[object, ...], tuple[Adapter, list[int]]] = {}
        for client, rows in self._personal.items():
            if len(rows):
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
