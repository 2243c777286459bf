"""SOFT with TSFA: sparsified orthogonal LoRA under a budget of latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from pydantic import NonNegativeFloat
from torch import Tensor

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.components import Components, Sent
from airtune.learning.orthogonality import Form, Orthogonal
from airtune.learning.phase import Objective, Phase, supervised
from airtune.methods.method import (
    Client,
    Delivery,
    Method,
    MethodConfig,
    Setup,
    State,
    Work,
    weighted_mean,
)
from airtune.radio.cell import Links
from airtune.radio.grant import Grant
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Pieces, Upload
from airtune.scheduling.plan import Plan
from airtune.scheduling.selection import choose_randomly
from airtune.wire import Dense, Payload, RankSlices, Shapes, ValueBits
from airtune.wire.rank_slices import SLICES, empty_bits, slice_bits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class SoftConfig(MethodConfig, LatencyConfig):
    """Options of SOFT and of TSFA; symbols as in the specification."""

    private: list[str] = Option(
        [], description="patterns of tensors that never leave a client, such as classifier.*"
    )
    orthogonality: NonNegativeFloat = Option(1e-2, description="mu, weight of the penalty")
    penalty: Form = Option(
        "off_diagonal", description="components orthogonal, or literally orthonormal"
    )
    score: Literal["change", "norm", "random"] = Option(
        "change", description="a component's importance: norm of its change, norm, or chance"
    )
    pool: Literal["matrix", "all"] = Option(
        "matrix", description="keep as many components of each matrix, or the best of all"
    )
    send: Literal["delta", "value"] = Option(
        "delta", description="changes of kept components, or their new values"
    )
    average: Literal["senders", "total"] = Option(
        "senders", description="Z: mean over who sent a component, or 1 (who did not: no change)"
    )
    kept_ratio: float = Option(1.0, gt=0, le=1, description="rho, most of the components")
    error_feedback: float = Option(
        0.0, ge=0, le=1, description="share of what was not sent that is kept for the next round"
    )
    train_a: bool = Option(True, description="false: LoRA's A stays as it started (FFA-LoRA)")
    value_bits: Literal[16, 32] = Option(32, description="of a number, both ways")


class Soft(Method):
    """Sparsified orthogonal LoRA, kept ratio and bandwidth by drift plus penalty (SOFT, TSFA).

    Clients train ``F + mu R``, R the off-diagonal Gram penalty, score each rank component by norms
    alone and send the slices (a_i, b_i) of those that count. TSFA grants each client bits and
    bandwidth: :mod:`airtune.scheduling.tsfa`. The server adds, component by component,
    ``sum_n p_n d_n,i / Z_i`` over those who sent it; A and B are averaged apart.

    Source: arXiv 2505.00333 (FOUND-P: separate averaging, orthogonal pull, norms only, no SVD;
    two-stage adaptation under a long-term latency constraint). DERIVED: product of norms, changes
    rather than values, Z, error feedback. Scores of a round reach the scheduler with its upload,
    charged, and serve the next round's plan.
    """

    Config: ClassVar[type[MethodConfig]] = SoftConfig
    uplink_payload: ClassVar[type] = RankSlices

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for adapters without components."""
        super().__init__(config, setup)
        shapes = {name: tuple(tensor.shape) for name, tensor in setup.initial.items()}
        self.components = Components(shapes, self.is_shared)
        if len(self.components) == 0:
            raise UserError(
                f"method.name: {config.name} sends components of LoRA, and no factor of it is "
                "shared; use adapter.kind lora, and keep lora_A or lora_B out of method.private."
            )
        weights = setup.examples / setup.examples.sum()
        self.scheduler = LatencyScheduler(
            config, setup.cell, self.pieces, weights, min(setup.per_round, len(weights))
        )

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

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return the whole shared adapter."""
        del plan
        return Dense(state["shared"], "float32" if self.config.value_bits == 32 else "float16")

    def phases(self, client: Client) -> list[Phase]:
        """Return local training with the pull towards orthogonality."""
        train_a = self.config.train_a
        trained = tuple(n for n in client.adapter if train_a or ".lora_A." not in n)
        return [Phase(client.data, self.objective, self.setup.train.local_steps, trained)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the slices that count, as many as fit."""
        started = self.started(client)
        self.keep_private(client)
        learned = self.owed(client)
        errors, ranking = self.components.ranked(
            self.scores(client, learned, started) ** 2, self.config.pool
        )
        count = self.fitting(ranking, grant.bits)
        if count == 0:
            client.problem = f"not one piece of the adapter fits into {grant.bits:.0f} bits"
            return None
        kept = torch.zeros(len(self.components), dtype=torch.bool)
        kept[ranking[:count].reshape(-1)] = True
        dropped, moved = self.components.errors(learned, started, kept)
        client.notes |= {
            "kept": float(kept.double().mean()),
            "moved": math.sqrt(moved),
            "drop_error": dropped / moved if moved else 0.0,
        }
        if self.config.error_feedback > 0.0:
            client.state["owed"] = self._rows(learned, started, ~kept)
        return self.message(client, learned, started, kept, errors)

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average component by component over those who sent it, and go on with the queues."""
        asked = [(d, d.grant) for d in deliveries if d.grant is not None]
        uploads = [
            Upload(d.client, d.seconds, grant.rate_bps, d.payload and d.payload.scores)
            for d, grant in asked
        ]
        state = {**state, "notes": {}, "schedule": self.scheduler.after(state["schedule"], uploads)}
        total = sum(delivery.weight for delivery, _ in asked)
        arrived = [delivery for delivery, _ in asked if delivery.payload is not None]
        if not arrived:
            return state
        old, components = state["shared"], self.components
        sent = [Sent(d.weight / total, d.payload.kept, d.payload.slices) for d in arrived]
        combine = components.added if self.config.send == "delta" else components.replaced
        slices = combine(components.slices(old), sent, self.config.average == "senders")
        rest = weighted_mean([(d.weight, d.payload.rest) for d in arrived])
        return {
            **state,
            "shared": {**old, **components.tensors(slices), **rest},
            "notes": self._covariance(old, sent),
        }

    def uplink_shapes(self) -> Shapes:
        """Return matrices with the parts of their slices, the rest, and the scores."""
        components = self.components
        shapes: dict[str, tuple[int, ...]] = {
            SLICES + matrix: (components.rank, *parts) for matrix, parts in components.parts.items()
        }
        shapes |= {name: tuple(t.shape) for name, t in self.rest(self.setup.initial).items()}
        if self.config.control in ("tsfa", "round"):
            shapes["scores"] = (self._count,)
        return shapes

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of the shared adapter."""
        return super().uplink_shapes()

    # What the hooks share.

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client; a frozen A has no need to."""
        return [*self.config.private, *([] if self.config.train_a else ["*.lora_A.*"])]

    @cached_property
    def objective(self) -> Objective:
        """What clients train towards."""
        config = self.config
        return (
            Orthogonal(config.orthogonality, config.penalty) if config.orthogonality else supervised
        )

    def started(self, client: Client) -> Adapter:
        """Return the adapter that a client began the round with."""
        own = client.state.get("private", {})
        return {**self.setup.initial, **client.heard.tensors, **own}

    def owed(self, client: Client) -> Adapter:
        """Return what was learned, with the decayed changes that were not sent before."""
        before = client.state.get("owed")
        if before is None:
            return client.adapter
        now = self.components.slices(client.adapter)
        whole = {m: rows + self.config.error_feedback * before[m] for m, rows in now.items()}
        return {**client.adapter, **self.components.tensors(whole)}

    def rest(self, adapter: Mapping[str, Tensor]) -> Adapter:
        """Return what is shared and no component: a head. It travels whole."""
        names = self.components.names
        return {n: tensor for n, tensor in self.shared(adapter).items() if n not in names}

    def scores(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return each component's importance, [components]."""
        if self.config.score == "change":
            return self.components.changes(learned, started)
        if self.config.score == "norm":
            return self.components.norms(learned)
        seed = keyed.integer(self.setup.seed, "components", client.round, client.index)
        draw = torch.Generator().manual_seed(seed)
        return torch.rand(len(self.components), generator=draw, dtype=torch.float64)

    def fitting(self, ranking: Tensor, budget: float) -> int:
        """Return how many pieces are sent within a budget of bits."""
        sizes = self.pieces.fixed_bits + self._component_bits[ranking].sum(1).cumsum(0)
        most = math.ceil(self.config.kept_ratio * self._count - 1e-9)
        return min(int((sizes <= budget).sum()), most)

    def message(
        self, client: Client, learned: Adapter, started: Adapter, kept: Tensor, errors: Tensor
    ) -> RankSlices:
        """Return the kept slices, what is no component, and what the scheduler needs to know."""
        is_delta = self.config.send == "delta"
        rows = self._rows(learned, started if is_delta else None, kept)
        by_matrix = self.components.by_matrix(kept)
        shares = errors / errors.sum().clamp(min=1e-30)
        return RankSlices(
            kept,
            {matrix: each[by_matrix[matrix]] for matrix, each in rows.items()},
            self.components.parts,
            self.value_bits,
            shares.float() if "scores" in self.uplink_shapes() else None,
            self.rest(client.adapter),
        )

    @property
    def value_bits(self) -> ValueBits:
        """Of a number that goes up."""
        bits: ValueBits = self.config.value_bits
        return bits

    @cached_property
    def dense_bits(self) -> int:
        """Size of an upload of everything."""
        return int(self.pieces.whole)

    @cached_property
    def pieces(self) -> Pieces:
        """What an upload is made of, for the scheduler."""
        fixed = empty_bits(self.uplink_shapes(), self.value_bits, self.rest(self.setup.initial))
        if self.config.pool == "all":
            return Pieces(fixed, self._component_bits.double().numpy(), len(self.components.parts))
        each = self._component_bits.view(-1, self.components.rank).sum(0)
        return Pieces(fixed, each.double().numpy(), 1)

    @cached_property
    def _component_bits(self) -> Tensor:
        parts = self.components.parts.values()
        each = torch.tensor([slice_bits(widths, self.value_bits) for widths in parts])
        return each.repeat_interleave(self.components.rank)

    @property
    def _count(self) -> int:
        """Number of pieces."""
        return self.components.rank if self.config.pool == "matrix" else len(self.components)

    def _rows(self, learned: Adapter, started: Adapter | None, chosen: Tensor) -> dict[str, Tensor]:
        """Return values, or changes, of the chosen components; zeros elsewhere."""
        now = self.components.slices(learned)
        before = None if started is None else self.components.slices(started)
        return {
            matrix: torch.where(
                there[:, None], now[matrix] - (0.0 if before is None else before[matrix]), 0.0
            )
            for matrix, there in self.components.by_matrix(chosen).items()
        }

    def _covariance(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, float]:
        """Return how large the covariance is among what was sent."""
        total = sum(each.weight for each in sent)
        before = self.components.slices(old)
        parts = []
        for each in sent:
            own = {}
            for matrix, kept in self.components.by_matrix(each.kept).items():
                own[matrix] = before[matrix].clone()
                base = before[matrix][kept] if self.config.send == "delta" else 0.0
                own[matrix][kept] = base + each.slices[matrix]
            parts.append(
                (each.weight / total, {**self.setup.initial, **old, **self.components.tensors(own)})
            )
        return self.components.covariance({**self.setup.initial, **old}, parts)
