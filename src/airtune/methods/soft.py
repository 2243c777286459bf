"""SOFT with TSFA: sparsified orthogonal LoRA under a budget of latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from pydantic import NonNegativeFloat
from torch import Tensor

from airtune import keyed
from airtune.learning.components import Pool, Sent
from airtune.learning.orthogonality import Form, Orthogonal
from airtune.learning.phase import Phase, supervised
from airtune.methods.method import Client, Delivery, MethodConfig, Setup, State, Work
from airtune.methods.slices import SlicedLora, SlicesConfig
from airtune.radio.cell import Links
from airtune.radio.grant import Grant
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Pieces, Upload
from airtune.scheduling.plan import Plan
from airtune.scheduling.selection import choose_randomly
from airtune.wire import Payload

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


# Notes: the share of the squared change that the best part of the components holds.
SPECTRUM = {"top_eighth": 0.125, "top_quarter": 0.25, "top_half": 0.5, "top_three_quarters": 0.75}


class SoftConfig(SlicesConfig, LatencyConfig):
    """Options of SOFT and of TSFA; symbols as in the specification."""

    orthogonality: NonNegativeFloat = Option(1e-2, description="mu, weight of the penalty")
    penalty: Form = Option(
        "off_diagonal", description="components orthogonal, or literally orthonormal"
    )
    score: Literal["change", "norm", "random"] = Option(
        "change", description="a component's importance: norm of its change, norm, or chance"
    )
    pool: Pool = Option(
        "matrix", description="keep as many components of each matrix, or the best of all"
    )
    kept_ratio: float = Option(1.0, gt=0, le=1, description="rho, most that is kept of components")
    send: Literal["delta", "value"] = Option(
        "delta", description="changes of kept components, or their new values"
    )
    average: Literal["senders", "total"] = Option(
        "senders", description="Z: mean over who sent a component, or 1 (no change, or a zero)"
    )
    error_feedback: float = Option(
        0.0, ge=0, le=1, description="share of what was not sent that is owed in the next round"
    )
    train_a: bool = Option(True, description="false: LoRA's A stays as it started (FFA-LoRA)")


class Soft(SlicedLora):
    """Sparsified orthogonal LoRA, kept ratio and bandwidth by drift plus penalty (SOFT, TSFA).

    Clients train ``F + mu R``, R the off-diagonal Gram penalty, score each rank component by norms
    alone and send the slices (a_i, b_i) of those that count. TSFA grants each client bits and
    bandwidth (:mod:`airtune.scheduling.tsfa`). The server adds, component by component,
    ``sum_n p_n d_n,i / Z_i`` over those who sent it; A and B are averaged apart.

    Source: arXiv 2505.00333 (FOUND-P: separate averaging, orthogonal pull, norms only, no SVD, kept
    ratio and bandwidth by Lyapunov optimisation under a long-term latency constraint). DERIVED:
    products of norms, changes rather than values, Z, error feedback, the optimisation itself. Ours:
    what components weigh reaches the scheduler with the upload, charged, for the next round's plan;
    Z is the mean over senders (1 in the specification), which learns more from a quarter of the
    bits; error feedback takes what was sent for arrived.
    """

    Config: ClassVar[type[MethodConfig]] = SoftConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        weights = setup.examples / setup.examples.sum()
        asked = min(setup.per_round, len(weights))
        self.scheduler = LatencyScheduler(config, setup.cell, self._sizes, weights, asked)

    # The hooks.

    def start(self) -> State:
        """Return the shared adapter and the scheduler's queues."""
        return {**super().start(), "schedule": self.scheduler.start()}

    def plan(self, state: State, links: Links) -> Plan:
        """Grant bits and bandwidth by what the components weighed last."""
        setup = self.setup
        chosen = choose_randomly(len(links), setup.per_round, setup.seed, links.round)
        seconds = setup.compute_seconds(chosen, Work(setup.train.local_steps))
        return self.scheduler.plan(state["schedule"], links, chosen, seconds)

    def phases(self, client: Client) -> list[Phase]:
        """Return local training with the pull towards orthogonality."""
        config, objective = self.config, supervised
        if config.orthogonality > 0.0:
            objective = Orthogonal(config.orthogonality, config.penalty, config.train_a)
        trained = tuple(n for n in client.adapter if config.train_a or ".lora_A." not in n)
        return [Phase(client.data, objective, self.setup.train.local_steps, trained)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the slices that count, as many as fit."""
        started = self.started(client)
        self.keep_private(client)
        learned = self._with_debt(client)
        squares = self.scores(client, learned, started) ** 2
        errors, ranking = self.components.ranked(squares, self.config.pool)
        count = self._fitting(ranking, grant.bits)
        if count == 0:
            client.problem = f"not one piece of the adapter fits into {grant.bits:.0f} bits"
        kept = torch.zeros(len(self.components), dtype=torch.bool)
        kept[ranking[:count].reshape(-1)] = True
        dropped, moved = self.components.errors(learned, started, kept)
        client.notes |= {
            "kept": float(kept.double().mean()),
            "moved": math.sqrt(moved),
            "drop_error": dropped / moved if moved else 0.0,
        }
        changes = self.components.changes(learned, started) ** 2
        if float(changes.sum()) > 0.0:
            held = self.components.held(changes, self.config.pool, list(SPECTRUM.values()))
            client.notes |= dict(zip(SPECTRUM, held, strict=True))
        slices, before = self.components.slices(learned), self.components.slices(started)
        if self.config.error_feedback > 0.0:
            there = self.components.by_matrix(kept)
            client.state["owed"] = {
                matrix: torch.where(there[matrix][:, None], 0.0, rows - before[matrix])
                for matrix, rows in slices.items()
            }
        if count == 0:
            return None
        if self.config.send == "delta":
            slices = {matrix: rows - before[matrix] for matrix, rows in slices.items()}
        shares = (errors / errors.sum().clamp(min=1e-30)).float() if self.pieces else None
        return self.message(client, slices, kept, shares)

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average what arrived, and go on with the queues."""
        uploads = [
            Upload(d.client, d.seconds, d.grant.rate_bps, d.payload and d.payload.scores)
            for d in deliveries
            if d.grant is not None and d.seconds > 0.0  # none: it did not hear the broadcast
        ]
        after = self.scheduler.after(state["schedule"], uploads)
        return super().aggregate({**state, "schedule": after}, deliveries)

    # Their parts.

    def scores(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return each component's importance, [components]."""
        if self.config.score == "change":
            return self.components.changes(learned, started)
        if self.config.score == "norm":
            return self.components.norms(learned)
        seed = keyed.integer(self.setup.seed, "components", client.round, client.index)
        draw = torch.Generator().manual_seed(seed)
        return torch.rand(len(self.components), generator=draw, dtype=torch.float64)

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Average each component over those who sent it."""
        is_delta = self.config.send == "delta"
        rule = self.components.added if is_delta else self.components.replaced
        slices = rule(self.components.slices(old), sent, self.config.average == "senders")
        return self.components.tensors(slices)

    def notes(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, float]:
        """Return the covariance that averaging A and B apart leaves out."""
        return self.components.covariance(old, sent, self.config.send == "delta")

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client; a frozen A has no need to."""
        return [*self.config.private, *([] if self.config.train_a else ["*.lora_A.*"])]

    @property
    def pieces(self) -> int:
        """How many pieces tell the scheduler what they weigh."""
        asked = self.config.control in ("tsfa", "round")
        return self.components.pieces(self.config.pool) if asked else 0

    @cached_property
    def _sizes(self) -> Pieces:
        """What an upload is made of, for the scheduler; the fewest are one of each matrix."""
        bits, matrices = self.component_bits.double(), len(self.components.parts)
        if self.config.pool == "all":
            return Pieces(self.fixed_bits, bits.numpy(), min(matrices, self._most), self._most)
        return Pieces(self.fixed_bits, bits.view(matrices, -1).sum(0).numpy(), 1, self._most)

    @property
    def _most(self) -> int:
        """Most pieces that are kept."""
        pieces = self.components.pieces(self.config.pool)
        return math.ceil(self.config.kept_ratio * pieces - 1e-9)

    def _with_debt(self, client: Client) -> Adapter:
        """Return what was learned, with the decayed changes that were not sent before."""
        owed = client.state.get("owed")
        if owed is None:
            return client.adapter
        now = self.components.slices(client.adapter)
        with_debt = {m: rows + self.config.error_feedback * owed[m] for m, rows in now.items()}
        return {**client.adapter, **self.components.tensors(with_debt)}

    def _fitting(self, ranking: Tensor, budget: float) -> int:
        """Return how many pieces are sent within a budget of bits."""
        sizes = self.fixed_bits + self.component_bits[ranking].sum(1).cumsum(0)
        return min(int((sizes <= budget).sum()), self._most)
