"""Schedulers that keep upload latency within a budget, by choosing what clients send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from airtune.config import Config
from airtune.errors import UserError
from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.units import Floats, Ints
from airtune.scheduling import tsfa
from airtune.scheduling.allocate import allocate
from airtune.scheduling.bandwidth import equal_shares
from airtune.scheduling.budgeted import bits_within, out_of_budget, ratios_within
from airtune.scheduling.expected import usual_bit_seconds
from airtune.scheduling.goodput import mean_tries
from airtune.scheduling.plan import Plan
from airtune.scheduling.tsfa import Band, Demand

Control = Literal["tsfa", "round", "limit", "client_ratio", "common_ratio", "none"]
State = dict[str, Any]


class LatencyConfig(Config):
    """How much clients send, so that computing and sending keep to a budget of seconds."""

    control: Control = Field(
        "tsfa",
        description="tsfa: each client's long-term average; round: that of each round's slowest; "
        "limit: every upload, equal bands; client_ratio, common_ratio: by mean rates, equal bands; "
        "none: what the cell grants",
    )
    latency_s: PositiveFloat = Field(0.5, description="tau, budget of computing and sending")
    v: PositiveFloat = Field(
        3.0, description="V, weight of accuracy against delay, relative to the cell"
    )
    bandwidth: Literal["square_root", "exact", "equal"] = Field(
        "square_root", description="how tsfa divides the band"
    )
    queue_floor: NonNegativeFloat = Field(
        0.1, description="least queue inside the bandwidth rule, of max(mean queue, tau)"
    )
    warm_queue: bool = Field(True, description="start at the queue that tsfa settles at")


@dataclass(frozen=True)
class Pieces:
    """What an upload is made of: a fixed part, and pieces of which some are kept."""

    fixed_bits: int
    bits: Floats  # [pieces]
    least: int
    limit: int | None = None  # most pieces that are ever sent

    @property
    def most(self) -> int:
        """Most pieces of an upload."""
        return len(self.bits) if self.limit is None else self.limit

    @property
    def smallest(self) -> float:
        """Size of the smallest upload."""
        return self.fixed_bits + float(np.sort(self.bits)[: self.least].sum())

    @property
    def whole(self) -> float:
        """Size of the largest upload."""
        return self.fixed_bits + float(np.sort(self.bits)[-self.most :].sum())


@dataclass(frozen=True)
class Upload:
    """What became of one grant: computing and sending, and what the client's pieces weigh."""

    client: int
    seconds: float
    rate_bps: float
    errors: torch.Tensor | None


class LatencyScheduler:
    """Turns links and the weights of pieces into grants; its state travels with the server's."""

    def __init__(
        self, config: LatencyConfig, cell: CellConfig, pieces: Pieces, weights: Floats, asked: int
    ) -> None:
        """``weights`` p are those of the whole population, ``asked`` clients take part a round."""
        if cell.measured and config.control != "none":
            raise UserError(
                f"method.control: {config.control} divides a band, and measured links share none; "
                "use none, with a cell.deadline_s for what clients can send."
            )
        self._config, self._cell, self.pieces, self._weights = config, cell, pieces, weights
        self._asked = asked
        self._planned: State = {}  # queues of the round that is under way

    def start(self) -> State:
        """Return queues that have not begun, and pieces that weigh alike."""
        clients, pieces = len(self._weights), len(self.pieces.bits)
        return {
            "errors": torch.full((clients, pieces), 1.0 / pieces, dtype=torch.float64),
            "queue": torch.full((clients,), torch.nan, dtype=torch.float64),
            "round_queue": math.nan,
            "bit_seconds": torch.zeros(clients, dtype=torch.float64),
            "uploads": torch.zeros(clients, dtype=torch.float64),
        }

    def plan(self, state: State, links: Links, chosen: Ints, compute_seconds: Floats) -> Plan:
        """Grant each client the bits and the spectrum that the control decides."""
        pieces, cell = self.pieces, self._cell
        if cell.ideal or self._config.control == "none":
            return allocate(links, chosen, pieces.whole, pieces.smallest, compute_seconds, cell)
        # Of those who are not asked now, the first queue alone needs to know.
        compute = np.full(len(links), compute_seconds.mean() if chosen.size else 0.0)
        compute[chosen] = compute_seconds
        budget, begins = self._config.latency_s, math.isnan(state["round_queue"])
        skipped = out_of_budget(links, chosen, compute, pieces.smallest, budget, cell, begins)
        able = np.array([client for client in chosen if client not in skipped], dtype=np.int64)
        self._planned = self._queues(state, links, compute)

        def divide(clients: Ints) -> tuple[Floats, Floats]:
            demand = Demand.of(
                state["errors"].numpy()[clients],
                pieces.bits.astype(np.float64),
                np.full(len(clients), float(pieces.fixed_bits)),
                compute[clients],
                self._weights[clients] / self._weights[clients].sum(),
                pieces.least,
                pieces.most,
            )
            return self._divide(state, links, demand, clients)

        plan = allocate(links, able, pieces.whole, pieces.smallest, compute[able], cell, divide)
        queue = self._planned["queue"].numpy()
        notes = {client: {"queue": float(queue[client])} for client in plan.grants}
        return replace(plan, notes=notes).with_skipped(skipped)

    def after(self, state: State, uploads: Sequence[Upload]) -> State:
        """Return the state after a round in which these clients had a grant."""
        if self._cell.ideal or self._config.control == "none":
            return state
        if math.isnan(state["round_queue"]):  # the first round's were worked out with its plan
            state = {**state, **self._planned}
        queue, errors = state["queue"].clone(), state["errors"].clone()
        bit_seconds, count = state["bit_seconds"].clone(), state["uploads"].clone()
        budget = self._config.latency_s
        for upload in uploads:
            waited = float(queue[upload.client])
            queue[upload.client] = float(tsfa.after(waited, upload.seconds, budget))
            bit_seconds[upload.client] += 1.0 / upload.rate_bps
            count[upload.client] += 1
            if upload.errors is not None:
                total = float(upload.errors.sum())
                if total > 0.0:
                    errors[upload.client] = upload.errors.double() / total
        slowest = max((upload.seconds for upload in uploads), default=budget)
        round_queue = float(tsfa.after(state["round_queue"], slowest, budget))
        return {
            "errors": errors,
            "queue": queue,
            "round_queue": round_queue,
            "bit_seconds": bit_seconds,
            "uploads": count,
        }

    # The controls.

    def _divide(
        self, state: State, links: Links, demand: Demand, clients: Ints
    ) -> tuple[Floats, Floats]:
        """Return shares in Hz and bits [n]."""
        config = self._config
        equal = equal_shares(len(clients), self._cell.bandwidth_hz)
        planned, mean = links.planned_snr_hz[clients], links.mean_snr_hz[clients]
        # With the waterfall tries depend on shares; those of equal ones stand for all.
        tries = mean_tries(planned, mean, equal, self._cell)
        band = Band(self._cell.bandwidth_hz, planned, self._cell.rate, tries)
        v = config.v * config.latency_s * self._full_seconds(links)
        if config.control == "round":
            share, count = tsfa.round_maximum(demand, band, self._planned["round_queue"], v)
            return share, demand.sizes(count)
        if config.control == "tsfa":
            # p is 1 / n on average: V relative to the cell counts on that.
            v *= len(clients)
            queue = self._planned["queue"].numpy()[clients]
            if config.bandwidth == "equal":
                return equal, demand.sizes(tsfa.threshold(demand, queue, band.rate(equal), v))
            floor = config.queue_floor * max(float(queue.mean()), config.latency_s)
            exact = config.bandwidth == "exact"
            share, count = tsfa.drift_plus_penalty(demand, band, queue, v, floor, exact)
            return share, demand.sizes(count)
        compute, budget = demand.compute_seconds, config.latency_s
        if config.control == "limit":
            return equal, bits_within(links, clients, equal, compute, budget, self._cell)
        fixed, bit_seconds = self.pieces.fixed_bits, self._mean_bit_seconds(state, links)[clients]
        common = config.control == "common_ratio"
        sizes = fixed, self.pieces.whole - fixed
        ratios = ratios_within(compute, bit_seconds, *sizes, budget, common)
        count = np.floor(ratios * demand.errors.shape[1] + 1e-9).astype(np.int64)
        return equal, demand.sizes(np.maximum(count, demand.least))

    def _queues(self, state: State, links: Links, compute: Floats) -> State:
        """Return the queues now: before the first round, those at which V and delay balance."""
        if not math.isnan(state["round_queue"]):
            return {"queue": state["queue"], "round_queue": state["round_queue"]}
        config, usual = self._config, self._full_seconds(links)
        own = self.pieces.whole * usual_bit_seconds(self._cell, links, self._asked)
        # Where everything fits into the budget, the balance is at no queue.
        waits = config.warm_queue & (compute + own > config.latency_s)
        with np.errstate(invalid="ignore"):
            weight = self._weights * len(self._weights)
            queue = np.where(waits, config.v * config.latency_s * weight * usual / own, 0.0)
        return {
            "queue": torch.from_numpy(queue),
            "round_queue": config.v * config.latency_s if waits.any() else 0.0,
        }

    def _full_seconds(self, links: Links) -> float:
        """Return the seconds in which a usual client sends everything: the unit of V."""
        return float(
            np.median(self.pieces.whole * usual_bit_seconds(self._cell, links, self._asked))
        )

    def _mean_bit_seconds(self, state: State, links: Links) -> Floats:
        """Return the seconds of a bit as seen so far, expected ones where nothing was."""
        seen = state["uploads"].numpy()
        share = self._cell.bandwidth_hz / min(self._asked, len(links))
        tries = mean_tries(links.planned_snr_hz, links.mean_snr_hz, share, self._cell)
        measured = tries * state["bit_seconds"].numpy() / np.maximum(seen, 1.0)
        return np.where(seen > 0, measured, usual_bit_seconds(self._cell, links, self._asked))
