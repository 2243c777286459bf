"""FedEx-LoRA: factors are averaged, and what that leaves out goes into the frozen weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from airtune.learning.components import Sent
from airtune.learning.low_rank import Factors
from airtune.methods.residual import RepairedLora
from airtune.methods.views import Client
from airtune.radio.grant import Grant
from airtune.wire import Payload

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class FedExLora(RepairedLora):
    """Federated averaging of both factors, exact: the residual moves the frozen weights.

    ``A <- sum_n p_n A_n``, B likewise, ``W <- W + scale (sum_n p_n B_n A_n - B A)``. An upload has
    the bits of averaging; the broadcast holds d_out x d_in numbers more for each matrix, or
    ``residual_rank`` (d_out + d_in).

    Source: Singhal et al. 2024, FedEx-LoRA (2410.09432).
    """

    needs_products = True

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send both factors whole; the federation refuses what exceeds a grant."""
        del grant
        self.keep_private(client)
        kept = torch.ones(len(self.components), dtype=torch.bool)
        return self.message(client, self.components.slices(client.adapter), kept)

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Average the factors apart."""
        slices = self.components.replaced(self.components.slices(old), sent, True)
        return self.components.tensors(slices)

    def products(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, Factors]:
        """Average the products."""
        return self.components.mean_products(old, sent, False, True)

    def notes(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, float]:
        """Return the covariance that averaging A and B apart leaves out."""
        return self.components.covariance(old, sent, False)
