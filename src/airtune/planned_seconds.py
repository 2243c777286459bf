"""What computing costs on clients' devices: of a token, and planned of a round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from airtune import keyed
from airtune.experiment import Experiment
from airtune.federation.in_process import Kind
from airtune.learning.adapter import AdaptedModel
from airtune.learning.data.examples import Examples
from airtune.methods.views import Work
from airtune.radio.compute import Passes, compute_seconds
from airtune.radio.config import CellConfig

_DRAWS = 8  # batches from which the length of a client's batch is estimated


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


class PlannedSeconds:
    """Expected seconds of computing in a round, worked out for clients when asked for."""

    def __init__(
        self,
        experiment: Experiment,
        kinds: Sequence[Kind],
        batch_tokens: Sequence[float] | None = None,
    ) -> None:
        """``batch_tokens`` [clients] are those of private batches, where clients' texts are not."""
        self._experiment, self._kinds, self._private = experiment, kinds, batch_tokens
        self._known: dict[tuple[int, Work], float] = {}

    def __call__(self, clients: np.ndarray, work: Work) -> np.ndarray:
        """Return the seconds of a round with this work, [clients]."""
        for client in map(int, clients):
            if (client, work) not in self._known:
                self._known[client, work] = self._seconds(client, work)
        return np.array([self._known[int(client), work] for client in clients], dtype=np.float64)

    def _seconds(self, client: int, work: Work) -> float:
        kind = self._kinds[client % len(self._kinds)]
        seed, train = self._experiment.seed, self._experiment.train
        if self._private is None:
            own = batch_tokens(seed, client, kind.data[client], train.batch_size)
        else:
            own = self._private[client]
        trained = work.private_steps * own
        if work.public_steps:
            size = work.public_batch_size
            trained += work.public_steps * batch_tokens(seed, client, kind.public, size)
        predicted = 0.0
        if work.predicted:
            lengths = kind.public.corpus.padded(kind.public.lengths())
            predicted = work.predicted * float(lengths.mean())
        costs = passes(kind.learner.model, self._experiment.cell)
        total = costs.training(trained + work.made_tokens)
        total += costs.inference(predicted + work.drawn_tokens)
        return float(compute_seconds(self._experiment.cell.devices, client, total))


def batch_tokens(seed: int, client: int, data: Examples, batch_size: int) -> float:
    """Return about how many tokens a client's batch of these examples has.

    Padding is computed too, so it is estimated from the lengths of batches, not of examples.
    """
    rows = min(batch_size, len(data))
    rng = keyed.generator(seed, "planned length", client)
    draws = rng.integers(len(data), size=(_DRAWS, rows))
    return rows * data.sequences * float(data.padded_lengths(draws).mean())
