"""What averaging A and B apart leaves out, gathered at the server and moved into frozen weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field as Option
from pydantic import PositiveInt

from airtune.errors import UserError
from airtune.learning import low_rank
from airtune.learning.components import Sent
from airtune.learning.low_rank import Factors, factors
from airtune.learning.shifts import shift_name
from airtune.methods.method import MethodConfig
from airtune.methods.slices import SlicedLora, SlicesConfig
from airtune.methods.views import Client, Delivery, Setup, State
from airtune.scheduling.plan import Plan
from airtune.wire import Payload, Shapes

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class RepairedConfig(SlicesConfig):
    """Options of methods that may repair separate averaging."""

    residual_rank: PositiveInt | None = Option(
        None, description="rank of the residual on its way down; default: all of it, dense"
    )


class RepairedLora(SlicedLora):
    """Sliced LoRA whose server may add the residual of averaging apart to the frozen weights.

    ``W <- W + scale (sum_n p_n B_n A_n - B A)``, so that the model is the mean of the clients'.
    The residual of all rounds goes down with every broadcast: a client that missed one, or is new,
    has no other way to know it.

    Source: FedEx-LoRA (Singhal et al. 2024, 2410.09432; FOUND: the residual goes into frozen
    weights, clients go on from mean A and mean B). Ours: the sum goes down instead of each round's
    part, whose rank is at most clients times r; of a given rank its best factors are cut from the
    whole sum, so that what is cut now may go down later. The server's model is what clients hear.
    """

    Config: ClassVar[type[MethodConfig]] = RepairedConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where products cannot be averaged, or frozen weights not be moved."""
        super().__init__(config, setup)
        # Of one broadcast or sum: what was read from it or cut from it, the same tensors for all.
        self._read: tuple[Any, Adapter] = None, {}
        self._cut: tuple[Any, Adapter] = None, {}
        if not self.repairs:
            if self.residual_rank is not None:
                raise UserError(
                    "method.residual_rank: no residual goes down; set method.residual=true, or "
                    "leave it out."
                )
            return
        parts = self.components.parts
        if any(len(widths) < 2 for widths in parts.values()):
            raise UserError(
                f"method.residual: {config.name} cannot repair what averaging A and B apart "
                "leaves out where one of them is not averaged; train and share both factors, or "
                "leave it false."
            )
        width, matrix = min((min(widths), matrix) for matrix, widths in parts.items())
        if self.residual_rank is not None and self.residual_rank > width:
            raise UserError(
                f"method.residual_rank: {self.residual_rank} is above the width {width} of "
                f"'{matrix}'; give at most {width}, or leave it out to send the whole residual."
            )
        if not setup.server.model.slots.stacked:
            raise UserError(
                f"method.name: {config.name} moves frozen weights, which needs a model whose "
                "trained modules are all linear; this one trains others beside LoRA."
            )

    # What a subclass says.

    @abstractmethod
    def products(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, Factors]:
        """Return the product that each matrix would have, were products averaged."""

    @property
    def repairs(self) -> bool:
        """Whether the residual is added."""
        return True

    @property
    def residual_rank(self) -> int | None:
        """Rank of what goes down of a matrix's residual; None: all of it."""
        rank: int | None = self.config.residual_rank
        return rank

    # The hooks.

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return the shared adapter and the residual, where there is one yet."""
        shared = {**state["shared"], **self._down(state)}
        return super().broadcast({**state, "shared": shared}, plan)

    def receive(self, client: Client, payload: Any) -> None:
        """Make shifts of the residual, the same tensors for all who heard this broadcast."""
        if self._read[0] is not payload:
            self._read = payload, self._as_shifts(payload.tensors)
        super().receive(client, replace(payload, tensors=self._read[1]))

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Combine what arrived, and gather what that leaves out."""
        after = super().aggregate(state, deliveries)
        sent = self.sent(deliveries)
        if not (self.repairs and sent):
            return after
        old, new = ({**self.setup.initial, **each["shared"]} for each in (state, after))
        gathered: Adapter = dict(state.get("residual", {}))
        for matrix, wanted in self.products(old, sent).items():
            left_out = low_rank.difference(wanted, factors(new, matrix).double())
            shift = self.setup.server.model.scale * (left_out.b @ left_out.a)
            before = gathered.get(matrix, torch.zeros(()))
            gathered[matrix] = (before.double() + shift).float()
        return {**after, "residual": gathered}

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of the shared adapter, and of the residual as it is sent."""
        shapes = dict(super().downlink_shapes())
        if self.repairs:
            for matrix, (d_in, d_out) in self.components.parts.items():
                if self.residual_rank is None:
                    shapes[shift_name(matrix)] = (d_out, d_in)
                else:
                    a, b = _factor_names(matrix)
                    shapes[a], shapes[b] = (self.residual_rank, d_in), (d_out, self.residual_rank)
        return shapes

    def model(self, state: State) -> Adapter:
        """Return the server's model with the residual that clients hear of, which they train on."""
        return {**super().model(state), **self._as_shifts(self._down(state))}

    # Their parts.

    def _down(self, state: State) -> Adapter:
        """Return the residual as it is sent."""
        gathered: Adapter | None = state.get("residual")
        if gathered is None:
            return {}
        if self.residual_rank is None:
            return {shift_name(matrix): shift for matrix, shift in gathered.items()}
        if self._cut[0] is not gathered:
            best: Adapter = {}
            for matrix, shift in gathered.items():
                found = low_rank.decomposed(shift, self.residual_rank)
                best |= dict(zip(_factor_names(matrix), found, strict=True))
            self._cut = gathered, best
        return self._cut[1]

    def _as_shifts(self, tensors: Adapter) -> Adapter:
        """Return tensors of a broadcast with the shifts that its factors stand for."""
        if self.residual_rank is None:
            return dict(tensors)
        found = dict(tensors)
        for matrix in self.components.parts:
            a, b = _factor_names(matrix)
            if a in found:
                found[shift_name(matrix)] = found.pop(b) @ found.pop(a)
        return found


def _factor_names(matrix: str) -> tuple[str, str]:
    """Return how the factors of a matrix's residual are called on their way."""
    return f"{shift_name(matrix)}_A", f"{shift_name(matrix)}_B"
