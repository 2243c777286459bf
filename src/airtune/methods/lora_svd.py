"""Truncated SVD of each client's change: the reference that SOFT does without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field as Option

from airtune.learning import low_rank
from airtune.learning.components import Sent
from airtune.learning.low_rank import factor_names, factors
from airtune.methods.method import MethodConfig
from airtune.methods.slices import SlicedLora, SlicesConfig
from airtune.methods.views import Client
from airtune.radio.grant import Grant
from airtune.wire import Payload

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class LoraSvdConfig(SlicesConfig):
    """Options of truncated uploads."""

    kept_ratio: float = Option(0.25, gt=0, le=1, description="sent components of each matrix")


class LoraSvd(SlicedLora):
    """Clients send the best K components of the change of B A; the server adds and decomposes.

    ``D_n = SVD_K(B_n A_n - B A)``, ``B A <- SVD_r(B A + sum_n p_n D_n)``, both through QR of the
    factors: exact, and K slices take the bits of K of SOFT's.

    Source: the baseline "SVD truncation" of the specification (3.7, DERIVED).
    """

    Config: ClassVar[type[MethodConfig]] = LoraSvdConfig
    needs_products = True

    def upload_bits(self, clients: np.ndarray) -> tuple[ArrayLike, ArrayLike]:
        """Return the sizes of the wanted components, and of one."""
        del clients
        return self.bits(self._most), self.bits(1)

    @property
    def _most(self) -> int:
        return math.ceil(self.config.kept_ratio * self.components.rank - 1e-9)

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send as many components of the change as the ratio and the grant allow."""
        started = self.started(client)
        self.keep_private(client)
        rank, matrices = self.components.rank, len(self.components.parts)
        fitting = (count for count in range(self._most, 0, -1) if self.bits(count) <= grant.bits)
        count = next(fitting, 0)
        if count == 0:
            client.problem = f"not one component fits into {grant.bits:.0f} bits"
            return None
        slices, left, whole = {}, 0.0, 0.0
        for matrix in self.components.parts:
            new, old = factors(client.adapter, matrix), factors(started, matrix)
            change = low_rank.difference(new, old)
            best = low_rank.truncated(change, rank)
            sent = best.take(torch.arange(count))
            size = low_rank.squared_norm(change)
            whole, left = whole + size, left + size - low_rank.squared_norm(sent)
            slices[matrix] = torch.cat([best.a, best.b.mT], dim=1)
        kept = (torch.arange(rank) < count).repeat(matrices)
        client.notes |= {"kept": count / rank, "moved": math.sqrt(whole)}
        client.notes["drop_error"] = max(left, 0.0) / whole if whole else 0.0
        return self.message(client, slices, kept)

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Return the best factors of the model with the weighted changes added."""
        new: Adapter = {}
        for matrix in self.components.parts:
            parts = [(each.weight, self.product(each, matrix)) for each in sent]
            whole = low_rank.stacked([(1.0, factors(old, matrix)), *parts])
            best = low_rank.truncated(whole, self.components.rank)
            new |= dict(zip(factor_names(matrix), best, strict=True))
        return new
