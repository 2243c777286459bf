"""The largest entries of the adapter's change, each on its own: the usual sparsification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field as Option
from torch import Tensor

from airtune.errors import UserError
from airtune.methods.averaging import weighted_mean
from airtune.methods.method import Method, MethodConfig, check_size
from airtune.methods.views import Client, Delivery, Setup, State
from airtune.radio.grant import Grant
from airtune.scheduling.plan import Plan
from airtune.wire import Dense, Payload, Shapes, SparseTensors, WireError, encode
from airtune.wire.entries import SPARSE, entries_bits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter

_HALVINGS = 20  # of the share of entries, until a message fills its budget


class TopKConfig(MethodConfig):
    """Options of entrywise top-k."""

    private: list[str] = Option(
        [], description="patterns of tensors that never leave a client, such as classifier.*"
    )
    ratio: float = Option(
        0.25, gt=0, le=1, description="bits of LoRA's entries, indices included, of a dense upload"
    )
    send: Literal["delta", "value"] = Option(
        "delta", description="changes, or new values with zeros for what is not sent"
    )
    average: Literal["senders", "total"] = Option(
        "senders", description="mean over who sent an entry, or over all (no change, or a zero)"
    )
    value_bits: Literal[16, 32] = Option(32, description="of a number, both ways")


class TopK(Method):
    """Clients send the largest entries of each factor of LoRA on its own; heads travel whole.

    ``theta_j <- theta_j + sum_n p_n d_n,j / Z_j`` over the clients that sent entry j. With
    ``send: value`` and ``average: total`` it is the naive reading, in which sparse factors are
    averaged as they are; it takes A and B apart.

    Source: specification 3.7 ("naive"), both readings of it (DERIVED).
    """

    Config: ClassVar[type[MethodConfig]] = TopKConfig
    uplink_payload: ClassVar[type] = SparseTensors
    why_not_summed = "its clients choose which entries they send, each others"

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for adapters without factors of LoRA to choose entries of."""
        super().__init__(config, setup)
        if not self.sizes:
            raise UserError(
                "method.name: topk sends entries of LoRA's factors, and none is shared; use "
                "adapter.kind lora, and keep lora_A or lora_B out of method.private."
            )

    def upload_bits(self, clients: np.ndarray) -> tuple[ArrayLike, ArrayLike]:
        """Return the sizes of the wanted entries, and of one of each tensor."""
        del clients
        counts = self._fitting(math.inf) or self.sizes
        one = dict.fromkeys(self.sizes, 1)
        bits = self.config.value_bits
        return (
            self._fixed_bits + entries_bits(counts, self.sizes, bits),
            self._fixed_bits + entries_bits(one, self.sizes, bits),
        )

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return the whole shared adapter."""
        del plan
        return Dense(state["shared"], "float32" if self.config.value_bits == 32 else "float16")

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send as large a share of the entries as ratio and grant allow."""
        self.keep_private(client)
        sparse = {name: client.adapter[name] for name in self.sizes}
        if self.config.send == "delta":
            sparse = {name: tensor - client.heard.tensors[name] for name, tensor in sparse.items()}
        counts = self._fitting(grant.bits)
        if counts is None:
            client.problem = f"not one entry of the adapter fits into {grant.bits:.0f} bits"
            return None
        flat = {name: tensor.reshape(-1) for name, tensor in sparse.items()}
        index = {
            name: values.abs().topk(counts[name]).indices.sort().values
            for name, values in flat.items()
        }
        values = {name: flat[name][places] for name, places in index.items()}
        left = sum(float((each**2).sum()) for each in flat.values())
        sent = sum(float((each**2).sum()) for each in values.values())
        client.notes |= {
            "kept": sum(counts.values()) / sum(self.sizes.values()),
            "drop_error": max(left - sent, 0.0) / left if left else 0.0,
        }
        bits = self.config.value_bits
        return SparseTensors(index, values, self.sizes, bits, self.whole(client.adapter))

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse numbers of another width, or too large to be learned ones."""
        del state
        if payload.value_bits != self.config.value_bits:
            bits = self.config.value_bits
            raise WireError(f"numbers have {payload.value_bits} bits, not {bits}.")
        check_size(payload)
        return payload

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average entry by entry over those who sent it."""
        total = sum(each.weight for each in deliveries if each.grant is not None)
        arrived = [each for each in deliveries if each.payload is not None]
        if not arrived:
            return state
        old = state["shared"]
        new = {name: self._averaged(old[name], name, arrived, total) for name in self.sizes}
        return {**state, "shared": {**old, **new, **weighted_mean(arrived)}}

    def uplink_shapes(self) -> Shapes:
        """Return factors of which entries travel, and tensors that do so whole."""
        shapes = super().uplink_shapes()
        return {SPARSE + name if name in self.sizes else name: s for name, s in shapes.items()}

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of the shared adapter."""
        return super().uplink_shapes()

    # What the hooks share.

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Numbers in each tensor of which entries travel."""
        shared = self.shared(self.setup.initial)
        return {name: tensor.numel() for name, tensor in shared.items() if ".lora_" in name}

    def whole(self, adapter: Mapping[str, Tensor]) -> Adapter:
        """Return what is shared and no factor: a head."""
        return {n: t for n, t in self.shared(adapter).items() if n not in self.sizes}

    @cached_property
    def dense_bits(self) -> int:
        """Size of an upload of everything."""
        return self._fixed_bits + entries_bits(self.sizes, self.sizes, self.config.value_bits)

    @cached_property
    def _fixed_bits(self) -> int:
        """Size of an upload without entries."""
        none = {name: torch.zeros(0, dtype=torch.int64) for name in self.sizes}
        empty = {name: torch.zeros(0) for name in self.sizes}
        whole = self.whole(self.setup.initial)
        bits = self.config.value_bits
        return 8 * len(encode(SparseTensors(none, empty, self.sizes, bits, whole)))

    def _fitting(self, budget: float) -> dict[str, int] | None:
        """Return how many entries of each tensor are sent, one share of all of them."""
        dense = sum(self.sizes.values()) * self.config.value_bits
        room = min(budget - self._fixed_bits, self.config.ratio * dense)
        low, high = 0.0, 2.0  # so that all is tried first
        best: dict[str, int] = {}
        for _ in range(_HALVINGS):
            share = 0.5 * (low + high)
            counts = {name: int(share * size) for name, size in self.sizes.items()}
            if share <= 1.0 and entries_bits(counts, self.sizes, self.config.value_bits) <= room:
                low, best = share, counts
            else:
                high = share
        return best if sum(best.values()) else None

    def _averaged(
        self, old: Tensor, name: str, arrived: Sequence[Delivery], total: float
    ) -> Tensor:
        sum_, mass = torch.zeros(old.numel(), dtype=torch.float64), torch.zeros(old.numel())
        for each in arrived:
            places, values = each.payload.index[name], each.payload.values[name]
            sum_[places] += each.weight / total * values.double()
            mass[places] += each.weight / total
        before = old.reshape(-1).double()
        mean = sum_ / torch.where(mass > 0, mass, 1.0)
        if self.config.send == "delta":
            new = before + (mean if self.config.average == "senders" else sum_)
        elif self.config.average == "senders":
            new = torch.where(mass > 0, mean, before)
        else:
            new = sum_ / (sum(each.weight for each in arrived) / total)
        return new.float().view(old.shape)
