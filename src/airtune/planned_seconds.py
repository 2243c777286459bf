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

    def __init__(self, experiment: Experiment, kinds: Sequence[Kind]) -> None:
        self._experiment, self._kinds = experiment, kinds
        self._known: dict[tuple[int, Work], float] = {}

    def __call__(self, clients: np.ndarray, work: Work) -> np.ndarray:
        """Return the seconds of a round with this work, [clients]."""
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
