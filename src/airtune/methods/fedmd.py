"""Federated distillation: logits travel instead of parameters."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from airtune.learning.knowledge import Knowledge, gather
from airtune.methods.distilling import Distilling, DistillingConfig
from airtune.methods.method import MethodConfig, check_size
from airtune.methods.views import Client, State
from airtune.radio.grant import Grant
from airtune.scheduling.plan import Plan
from airtune.wire import Payload, Shapes, SparseLogits, ValueBits, WireError, message_bits

_LARGEST = 1e4  # of logits: far beyond any model's, and float16 holds their means


class FedMD(Distilling):
    """Federated distillation of all logits on public texts; the reference for those of some.

    Source: FedMD (Li and Wang 2019) for the consensus and its digest before private learning; the
    server's model as in KD-FedLLM (2501.04436, second hand). Rules of aggregation: see
    :func:`airtune.learning.ensemble.combine`; with all logits ``mask`` is their plain mean.
    Ours: centring of logits, frozen A, a longer first round.
    """

    Config: ClassVar[type[MethodConfig]] = DistillingConfig
    uplink_payload: ClassVar[type] = SparseLogits

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return what is known; in the first round there is nothing."""
        del plan
        nothing = torch.zeros(0, 0)
        known = state.get("known", {"values": nothing, "index": nothing.long()})
        return self.message(Knowledge(width=self.setup.width, **known))

    def said(self, payload: Any) -> Knowledge:
        """Return what a broadcast says."""
        return Knowledge(
            payload.values, payload.index, payload.width, payload.rest, payload.projections
        )

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send all logits."""
        del grant
        self.keep(client)
        positions, width = self.public_texts.positions_of(client.public), self.setup.width
        known = gather(client.predict(client.public), positions, width, width, self.form)
        return self.message(known)

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse logits that are not about as many predictions as their texts have."""
        del state
        sent, known = [payload.value_bits], [self.config.value_bits]
        if payload.projections is not None:
            sent, known = [*sent, payload.projection_bits], [*known, self.projection_bits]
        if sent != known:
            raise WireError(f"numbers have {sent} bits, not {known}.")
        self.check_size(payload)
        expected = self.positions.within(payload.texts)
        if len(payload.values) != expected:
            raise WireError(
                f"logits of {len(payload.values)} predictions, but its texts have {expected}."
            )
        return payload

    def uplink_shapes(self) -> Shapes:
        """Return how many predictions there are of how many entries."""
        texts = len(self.setup.public)
        return {"logits": (len(self.positions), self.setup.width), "texts": (texts,)}

    @property
    def projection_bits(self) -> ValueBits:
        """Of each of a projection's numbers."""
        return 16

    @property
    def wanted_bits(self) -> int:
        """Size of the message that a client means to send."""
        return self.dense_bits

    @property
    def least_bits(self) -> int:
        """Size of the smallest message that is of use."""
        return self.dense_bits

    @cached_property
    def dense_bits(self) -> int:
        """Size of a message with all logits."""
        width = self.setup.width
        return message_bits(len(self.positions), width, width, self.config.value_bits)

    def message(self, known: Knowledge, texts: Tensor | None = None) -> SparseLogits:
        """Return knowledge as it travels: entries by ascending index."""
        order = known.index.masked_fill(known.values.isinf(), known.width).argsort(1)
        return SparseLogits(
            known.values.gather(1, order),
            known.index.gather(1, order),
            known.width,
            self.config.value_bits,
            texts,
            known.rest,
            known.projections,
            self.projection_bits,
        )

    def check_size(self, payload: SparseLogits) -> None:
        """Refuse logits that no model gives and that would spoil everybody's mean."""
        check_size(payload, _LARGEST)
