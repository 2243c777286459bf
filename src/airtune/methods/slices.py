"""Uploads of rank components: what methods that send parts of a LoRA share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.components import Components, Pool, Sent
from airtune.methods.method import Client, Delivery, Method, MethodConfig, Setup, State
from airtune.methods.method import weighted_mean as mean_of
from airtune.radio.grant import Grant
from airtune.scheduling.latency import Pieces
from airtune.wire import Dense, Payload, RankSlices, Shapes, ValueBits
from airtune.wire.rank_slices import SLICES, empty_bits, slice_bits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class SlicesConfig(MethodConfig):
    """What is sent of a LoRA's components, and how it is averaged."""

    private: list[str] = Option(
        [], description="patterns of tensors that never leave a client, such as classifier.*"
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
    value_bits: Literal[16, 32] = Option(32, description="of a number, both ways")


class SlicedLora(Method):
    """Federated averaging, component by component, of the slices that clients send.

    A subclass says what a component is worth (:meth:`scores`), and may say when the scheduler
    needs to hear of it (:attr:`reports`).
    """

    Config: ClassVar[type[MethodConfig]] = SlicesConfig
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

    # What a subclass says.

    def scores(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return each component's importance, [components]."""
        del client
        return self.components.changes(learned, started)

    @property
    def reports(self) -> bool:
        """Whether uploads tell the scheduler what each piece weighs."""
        return False

    # The hooks.

    def broadcast(self, state: State, plan: Any) -> Payload:
        """Return the whole shared adapter."""
        del plan
        return Dense(state["shared"], "float32" if self.config.value_bits == 32 else "float16")

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the slices that count, as many as fit."""
        own = client.state.get("private", {})
        started = {**self.setup.initial, **client.heard.tensors, **own}
        self.keep_private(client)
        learned = self._with_debt(client)
        squares = self.scores(client, learned, started) ** 2
        errors, ranking = self.components.ranked(squares, self.config.pool)
        count = self._fitting(ranking, grant.bits)
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
        slices = self.components.slices(learned)
        if self.config.send == "delta":
            before = self.components.slices(started)
            slices = {matrix: rows - before[matrix] for matrix, rows in slices.items()}
        return self._message(client, slices, kept, errors / errors.sum().clamp(min=1e-30))

    def _message(
        self, client: Client, slices: Mapping[str, Tensor], kept: Tensor, errors: Tensor
    ) -> Payload:
        """Return the kept of all slices, and note what is owed."""
        by_matrix = self.components.by_matrix(kept)
        sent = {matrix: rows[by_matrix[matrix]] for matrix, rows in slices.items()}
        if self.config.error_feedback > 0.0:
            client.state["owed"] = {
                matrix: torch.where(by_matrix[matrix][:, None], 0.0, rows)
                for matrix, rows in slices.items()
            }
        scores = errors.float() if self.reports else None
        rest = self.rest(client.adapter)
        return RankSlices(kept, sent, self.components.parts, self.value_bits, scores, rest)

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average each component over those who sent it; note the covariance that is left out."""
        total = sum(each.weight for each in deliveries if each.grant is not None)
        arrived = [delivery for delivery in deliveries if delivery.payload is not None]
        if not arrived:
            return {**state, "notes": {}}
        old, components = state["shared"], self.components
        sent = [
            Sent(each.weight / total, each.payload.kept, each.payload.slices) for each in arrived
        ]
        is_delta = self.config.send == "delta"
        combine = components.added if is_delta else components.replaced
        slices = combine(components.slices(old), sent, self.config.average == "senders")
        rest = mean_of([(each.weight, each.payload.rest) for each in arrived])
        notes = components.covariance({**self.setup.initial, **old}, sent, is_delta)
        return {**state, "shared": {**old, **components.tensors(slices), **rest}, "notes": notes}

    def uplink_shapes(self) -> Shapes:
        """Return matrices with the parts of their slices, the rest, and the scores."""
        components = self.components
        shapes: dict[str, tuple[int, ...]] = {
            SLICES + matrix: (components.rank, *parts) for matrix, parts in components.parts.items()
        }
        shapes |= {name: tuple(t.shape) for name, t in self.rest(self.setup.initial).items()}
        if self.reports:
            shapes["scores"] = (components.pieces(self.config.pool),)
        return shapes

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of the shared adapter."""
        return super().uplink_shapes()

    # What the hooks share.

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client; a frozen A has no need to."""
        return [*self.config.private, *([] if self.config.train_a else ["*.lora_A.*"])]

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the tensors that train."""
        return tuple(
            name for name in self.setup.initial if self.config.train_a or ".lora_A." not in name
        )

    def rest(self, adapter: Mapping[str, Tensor]) -> Adapter:
        """Return what is shared and no component: a head. It travels whole."""
        names = self.components.names
        return {n: tensor for n, tensor in self.shared(adapter).items() if n not in names}

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
        """What an upload is made of, for a scheduler; the fewest are one of each matrix."""
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

    def _with_debt(self, client: Client) -> Adapter:
        """Return what was learned, with the decayed changes that were not sent before."""
        owed = client.state.get("owed")
        if owed is None:
            return client.adapter
        now = self.components.slices(client.adapter)
        whole = {m: rows + self.config.error_feedback * owed[m] for m, rows in now.items()}
        return {**client.adapter, **self.components.tensors(whole)}

    def _fitting(self, ranking: Tensor, budget: float) -> int:
        """Return how many pieces are sent within a budget of bits."""
        sizes = self.pieces.fixed_bits + self._component_bits[ranking].sum(1).cumsum(0)
        most = math.ceil(self.config.kept_ratio * len(ranking) - 1e-9)
        return min(int((sizes <= budget).sum()), most)
