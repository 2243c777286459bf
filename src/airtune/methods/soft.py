"""SOFT with TSFA: sparsified orthogonal LoRA under a budget of latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from pydantic import NonNegativeFloat
from torch import Tensor

from airtune import keyed
from airtune.learning.orthogonality import Form, Orthogonal
from airtune.learning.phase import Phase, supervised
from airtune.methods.method import Client, Delivery, MethodConfig, Setup, State, Work
from airtune.methods.slices import SlicedLora, SlicesConfig
from airtune.radio.cell import Links
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Upload
from airtune.scheduling.plan import Plan
from airtune.scheduling.selection import choose_randomly

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class SoftConfig(SlicesConfig, LatencyConfig):
    """Options of SOFT and of TSFA; symbols as in the specification."""

    orthogonality: NonNegativeFloat = Option(1e-2, description="mu, weight of the penalty")
    penalty: Form = Option(
        "off_diagonal", description="components orthogonal, or literally orthonormal"
    )
    score: Literal["change", "norm", "random"] = Option(
        "change", description="a component's importance: norm of its change, norm, or chance"
    )


class Soft(SlicedLora):
    """Sparsified orthogonal LoRA, kept ratio and bandwidth by drift plus penalty (SOFT, TSFA).

    Clients train ``F + mu R``, R the off-diagonal Gram penalty, score each rank component by norms
    alone and send the slices (a_i, b_i) of those that count. TSFA grants each client bits and
    bandwidth (:mod:`airtune.scheduling.tsfa`). The server adds, component by component,
    ``sum_n p_n d_n,i / Z_i`` over those who sent it; A and B are averaged apart.

    Source: arXiv 2505.00333 (FOUND-P: separate averaging, orthogonal pull, norms only, no SVD, kept
    ratio and bandwidth by Lyapunov optimisation under a long-term latency constraint). DERIVED:
    products of norms, changes rather than values, Z, error feedback, the optimisation itself. Ours:
    what components weigh reaches the scheduler with the upload, charged, for the next round's plan.
    """

    Config: ClassVar[type[MethodConfig]] = SoftConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        weights = setup.examples / setup.examples.sum()
        asked = min(setup.per_round, len(weights))
        self.scheduler = LatencyScheduler(config, setup.cell, self.pieces, weights, asked)

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
            objective = Orthogonal(config.orthogonality, config.penalty)
        return [Phase(client.data, objective, self.setup.train.local_steps, self.trained)]

    def scores(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return each component's importance, [components]."""
        if self.config.score == "change":
            return self.components.changes(learned, started)
        if self.config.score == "norm":
            return self.components.norms(learned)
        seed = keyed.integer(self.setup.seed, "components", client.round, client.index)
        draw = torch.Generator().manual_seed(seed)
        return torch.rand(len(self.components), generator=draw, dtype=torch.float64)

    @property
    def reports(self) -> bool:
        """Whether uploads tell the scheduler what each piece weighs."""
        return self.config.control in ("tsfa", "round")

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average what arrived, and go on with the queues."""
        uploads = [
            Upload(d.client, d.seconds, d.grant.rate_bps, d.payload and d.payload.scores)
            for d in deliveries
            if d.grant is not None
        ]
        after = self.scheduler.after(state["schedule"], uploads)
        return super().aggregate({**state, "schedule": after}, deliveries)
