"""What methods share whose clients send rank components of their LoRA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field as Option
from torch import Tensor

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.components import Components, Sent
from airtune.learning.low_rank import Factors
from airtune.methods.averaging import weighted_mean
from airtune.methods.method import Method, MethodConfig, check_size
from airtune.methods.views import Client, Delivery, Setup, State
from airtune.scheduling.plan import Plan
from airtune.wire import Dense, Payload, RankSlices, Shapes, ValueBits, WireError
from airtune.wire.rank_slices import SLICES, empty_bits, rounded_stochastically, slice_bits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class SlicesConfig(MethodConfig):
    """Options of methods that send components."""

    private: list[str] = Option(
        [], description="patterns of tensors that never leave a client, such as classifier.*"
    )
    value_bits: ValueBits = Option(
        32,
        description="of a number that goes up, below 16 rounded at random with a scale for each "
        "slice; 16: of one that goes down too",
    )


class SlicedLora(Method, ABC):
    """Clients send slices of LoRA's factors, and whole what is no factor; a subclass combines them.

    Everybody starts a round from the broadcast factors, so component i means the same everywhere.
    """

    Config: ClassVar[type[MethodConfig]] = SlicesConfig
    uplink_payload: ClassVar[type] = RankSlices
    why_not_summed = "its server combines the components of each client by more than their sum"
    needs_products: ClassVar[bool] = False  # whether A alone, or B alone, is of no use

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for adapters without components, or without products where needed."""
        super().__init__(config, setup)
        shapes = {name: tuple(tensor.shape) for name, tensor in setup.initial.items()}
        self.components = Components(shapes, self.is_shared)
        if len(self.components) == 0:
            raise UserError(
                f"method.name: {config.name} sends components of LoRA, and no factor of it is "
                "shared; use adapter.kind lora, and keep lora_A or lora_B out of method.private."
            )

        if self.needs_products and any(len(p) < 2 for p in self.components.parts.values()):
            raise UserError(
                f"method.private: {config.name} combines products B A, so both factors travel; "
                "keep lora_A and lora_B out of it."
            )

    # What a subclass says.

    @abstractmethod
    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Return the shared factors made of what arrived.

        Weights are shares of all who were asked, so they sum to less than one where some is lost.
        """

    @property
    def pieces(self) -> int:
        """How many pieces tell a scheduler what they weigh; none by default."""
        return 0

    # The hooks.

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return the whole shared adapter."""
        del plan
        if self.config.value_bits != 16:
            return Dense(state["shared"], "float32")
        # What was learned in many rounds must not become infinite on its way.
        bounds = torch.finfo(torch.float16)
        fitting = {name: t.clamp(bounds.min, bounds.max) for name, t in state["shared"].items()}
        return Dense(fitting, "float16")

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse numbers of another width, or too large to be learned ones."""
        del state
        if payload.value_bits != self.value_bits:
            raise WireError(f"numbers have {payload.value_bits} bits, not {self.value_bits}.")
        check_size(payload, self.largest)
        return payload

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Combine components, and average whole tensors over those who sent them."""
        arrived = [each for each in deliveries if each.payload is not None]
        if not arrived:
            return {**state, "notes": {}}
        sent = self.sent(deliveries)
        old = {**self.setup.initial, **state["shared"]}
        new = {**self.combine(old, sent), **weighted_mean(arrived)}
        return {**state, "shared": {**state["shared"], **new}, "notes": self.notes(old, sent)}

    def notes(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, float]:
        """Return what the ledger says of the round."""
        del old, sent
        return {}

    def uplink_shapes(self) -> Shapes:
        """Return matrices with the parts of their slices, whole tensors, and the scores."""
        components = self.components
        shapes: dict[str, tuple[int, ...]] = {
            SLICES + matrix: (components.rank, *parts) for matrix, parts in components.parts.items()
        }
        shapes |= {name: tuple(t.shape) for name, t in self.whole(self.setup.initial).items()}
        return shapes | ({"scores": (self.pieces,)} if self.pieces else {})

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of the shared adapter."""
        return super().uplink_shapes()

    # What the hooks share.

    def started(self, client: Client) -> Adapter:
        """Return the adapter that a client began the round with."""
        own = client.state.get("private", {})
        return {**self.setup.initial, **client.heard.tensors, **own}

    def message(
        self,
        client: Client,
        slices: Mapping[str, Tensor],
        kept: Tensor,
        scores: Tensor | None = None,
    ) -> RankSlices:
        """Return the ``kept`` [components] of all slices [rank, width] of each matrix, rounded."""
        by_matrix = self.components.by_matrix(kept)
        sent = {matrix: rows[by_matrix[matrix]] for matrix, rows in slices.items()}
        parts, bits = self.components.parts, self.value_bits
        if bits < 16:
            seed = keyed.integer(self.setup.seed, "rounding", client.round, client.index)
            draw = torch.Generator().manual_seed(seed)
            sent = {m: rounded_stochastically(s, parts[m], bits, draw) for m, s in sent.items()}
        elif bits == 16:
            sent = {m: s.half().float() for m, s in sent.items()}
        return RankSlices(kept, sent, parts, bits, scores, self.whole(client.adapter))

    def sent(self, deliveries: Sequence[Delivery]) -> list[Sent]:
        """Return what arrived, weighted by shares of all who were asked."""
        total = sum(each.weight for each in deliveries if each.grant is not None)
        return [
            Sent(each.weight / total, each.payload.kept, each.payload.slices)
            for each in deliveries
            if each.payload is not None
        ]

    def product(self, sent: Sent, matrix: str) -> Factors:
        """Return the factors of what a client sent of a matrix."""
        a, b = sent.slices[matrix].split(list(self.components.parts[matrix]), dim=1)
        return Factors(a, b.mT)

    def whole(self, adapter: Mapping[str, Tensor]) -> Adapter:
        """Return what is shared and no component: a head."""
        names = self.components.names
        return {name: t for name, t in self.shared(adapter).items() if name not in names}

    @property
    def largest(self) -> float:
        """Beyond it a number is no learned one; sums have to fit into what goes down."""
        return 1e4 if self.config.value_bits == 16 else 1e6

    @property
    def value_bits(self) -> ValueBits:
        """Of a number that goes up."""
        bits: ValueBits = self.config.value_bits
        return bits

    @cached_property
    def fixed_bits(self) -> int:
        """Size of an upload without any component."""
        return empty_bits(self.uplink_shapes(), self.value_bits, self.whole(self.setup.initial))

    @cached_property
    def component_bits(self) -> Tensor:
        """Sizes of the components, [components]."""
        parts = self.components.parts.values()
        each = torch.tensor([slice_bits(widths, self.value_bits) for widths in parts])
        return each.repeat_interleave(self.components.rank)

    def bits(self, count: int) -> int:
        """Return the size of an upload of ``count`` components of every matrix."""
        each = self.component_bits.view(len(self.components.parts), -1)
        return self.fixed_bits + int(each[:, :count].sum())

    @cached_property
    def dense_bits(self) -> int:
        """Size of an upload of everything."""
        return self.bits(self.components.rank)
