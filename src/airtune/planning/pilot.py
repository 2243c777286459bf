"""Short runs that show what a rank is worth, through the same rounds as any run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from torch import Tensor

from airtune.build import Parts, build
from airtune.build import rounds as build_rounds
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.records import UploadRow
from airtune.learning import low_rank
from airtune.learning.data.sources import Table
from airtune.learning.low_rank import Factors, factors
from airtune.methods.slices import SlicedLora
from airtune.methods.views import Delivery, State
from airtune.planning.surrogate import Terms
from airtune.planning.terms import at, best, dropped_shares
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.units import Floats
from airtune.wire import Dense, RankSlices, decode


class Watched:
    """A federation that keeps the messages of its last round."""

    def __init__(self, inner: Federation) -> None:
        self._inner = inner
        self.orders: Sequence[Order] = ()
        self.replies: Sequence[Reply] = ()

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Carry out the orders, and keep them with the replies."""
        replies = self._inner.exchange(orders)
        self.orders, self.replies = orders, replies
        return replies


@dataclass(frozen=True)
class Score:
    """What held-out texts say of a model."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Round:
    """One round of dense uploads.

    ``before`` and ``after`` are held-out losses; ``thin`` is that after the same round with only
    what the budget affords, in whole pieces, None if that is nothing, and ``thin_dropped`` the
    share of squared change that it misses. ``dropped`` is that share at the mean number of pieces,
    ``covariance`` that of averaging apart, squared and relative to the squared change.
    """

    before: float
    after: float
    thin: float | None
    thin_dropped: float
    dropped: float
    covariance: float


@dataclass(frozen=True)
class Pilot:
    """A rank's dense pilot, and the change of every matrix's product from start to end."""

    rounds: list[Round]
    changes: list[Factors]

    def mean(self, phi: float) -> Terms:
        """Return the rank's terms, means over rounds."""
        dropped = float(np.mean([each.dropped for each in self.rounds]))
        return Terms(phi, dropped, float(np.mean([each.covariance for each in self.rounds])))


@dataclass(frozen=True)
class Trial:
    """What came of a rank's pilot under the experiment's own cell and budget.

    ``latency_s`` is the mean of computing and sending over uploads: TSFA keeps to its budget in the
    long run, so a pilot of a few rounds may lie beside it.
    """

    start: Score
    end: Score
    uplink_bits: int
    latency_s: float


def with_rank(experiment: Experiment, rank: int) -> Experiment:
    """Return the experiment with another rank, ``alpha / rank`` as it was; no personal tests."""
    old = experiment.adapter
    adapter = old.model_copy(update={"rank": rank, "alpha": old.alpha * rank / old.rank})
    clients = experiment.clients.model_copy(update={"test_fraction": 0.0})
    return experiment.model_copy(update={"adapter": adapter, "clients": clients})


def try_budget(parts: Parts, rounds: int) -> Trial:
    """Run the method as it is described for some rounds.

    Raises UserError if training diverges, and if nothing arrives.
    """
    runner, state = build_rounds(parts), parts.method.start()
    start, bits, delivered, latencies, diverged = _score(parts, state), 0, 0, [], False
    reasons: list[str] = []
    for number in range(1, rounds + 1):
        outcome = runner.run(state, number)
        state = outcome.state
        bits, delivered = bits + outcome.totals.uplink_bits, delivered + outcome.totals.delivered
        rows = [row for row in outcome.messages if isinstance(row, UploadRow)]
        reasons += [row.reason or row.status for row in rows]
        latencies += [row.compute_seconds + row.seconds for row in rows if row.bits]
        diverged |= any(row.status in ("diverged", "refused") for row in rows)
    end = _score(parts, state)
    if (delivered == 0 and diverged) or not np.isfinite(end.loss):
        raise UserError(f"train.learning_rate: a pilot of {rounds} rounds diverged; lower it.")
    if delivered == 0:
        raise UserError(
            f"method.latency_s: nothing arrived in {rounds} rounds of the pilot; most often a "
            f"client {Counter(reasons).most_common(1)[0][0]}."
        )
    return Trial(start, end, bits, float(np.mean(latencies)))


def dense_pilot(experiment: Experiment, table: Table, rounds: int, afford: Floats) -> Pilot:
    """Train with everything sent, and see what less of it would have done.

    ``afford`` [clients] are mean numbers of pieces that each client's link carries; NaN stands for
    a client that sends nothing under the budget. Raises UserError if training diverges.
    """
    method_config = experiment.method.model_copy(update={"control": "none", "kept_ratio": 1.0})
    cell = CellConfig(ideal=True)
    parts = build(experiment.model_copy(update={"method": method_config, "cell": cell}), table)
    method, watched = cast(SlicedLora, parts.method), Watched(parts.clients)
    runner, state = build_rounds(parts, watched), parts.method.start()
    found, before = [], _score(parts, state).loss
    for number in range(1, rounds + 1):
        outcome = runner.run(state, number)
        after = _score(parts, outcome.state).loss
        if outcome.totals.delivered == 0 or not np.isfinite(after):
            raise UserError(
                f"train.learning_rate: the pilot of rank {method.components.rank} diverged in "
                f"round {number}; lower it."
            )
        thin = _thinned(method, watched, experiment, afford)
        loss = None
        if any(each.payload is not None for each in thin.deliveries):
            loss = _score(parts, method.aggregate(state, thin.deliveries)).loss
        covariance = float(outcome.totals.notes["covariance_of_change"]) ** 2
        found.append(Round(before, after, loss, thin.whole, thin.mean, covariance))
        before, state = after, outcome.state
    model = method.model(state)
    changes = [
        low_rank.difference(factors(model, matrix), factors(method.setup.initial, matrix))
        for matrix in method.components.parts
    ]
    return Pilot(found, changes)


@dataclass(frozen=True)
class _Thin:
    """A round's uploads cut to a budget, and the shares dropped: in whole pieces, and at means."""

    deliveries: list[Delivery]
    whole: float
    mean: float


def _thinned(method: SlicedLora, watched: Watched, experiment: Experiment, afford: Floats) -> _Thin:
    examples, pool = method.setup.examples, experiment.method.pool
    heard = cast(Dense, decode(watched.orders[0].message, method.downlink_shapes()))
    started = {**method.setup.initial, **heard.tensors}
    deliveries, weights, whole, mean = [], [], [], []
    for reply in watched.replies:
        if reply.message is None or np.isnan(afford[reply.client]):
            continue
        payload = cast(RankSlices, decode(reply.message, method.uplink_shapes()))
        learned = _learned(method, started, payload, experiment.method.send == "delta")
        curve, ranking = dropped_shares(method.components, learned, started, pool)
        count = round(float(afford[reply.client]))
        weight = float(examples[reply.client] / examples.sum())
        cut = _cut(method, payload, best(ranking, count, len(payload.kept))) if count else None
        grant = Grant(reply.client, np.inf, 1.0, 1.0, np.inf)
        deliveries.append(Delivery(reply.client, cut, weight, grant, reply.loss, 0.0))
        weights.append(weight)
        whole.append(float(curve[count]))
        mean.append(at(curve, float(afford[reply.client])))
    if not weights:
        return _Thin([], 1.0, 1.0)
    return _Thin(deliveries, *(float(np.average(each, weights=weights)) for each in (whole, mean)))


def _learned(
    method: SlicedLora, started: dict[str, Tensor], payload: RankSlices, is_delta: bool
) -> dict[str, Tensor]:
    """Return the adapter of which all components were sent."""
    before = method.components.slices(started)
    slices = {m: rows + before[m] if is_delta else rows for m, rows in payload.slices.items()}
    return {**started, **method.components.tensors(slices)}


def _cut(method: SlicedLora, payload: RankSlices, kept: Tensor) -> RankSlices:
    """Return a whole upload with only some of its components."""
    there = method.components.by_matrix(kept)
    slices = {matrix: rows[there[matrix]] for matrix, rows in payload.slices.items()}
    return replace(payload, kept=kept, slices=slices)


def _score(parts: Parts, state: State) -> Score:
    seen = parts.evaluator.score(parts.method.model(state), b"", 0, state)
    return Score(seen.loss, seen.accuracy)
