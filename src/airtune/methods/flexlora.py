"""FlexLoRA: clients of unequal ranks; the server averages products and decomposes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field as Option
from pydantic import PositiveInt
from torch import Tensor

from airtune.errors import UserError
from airtune.learning import low_rank
from airtune.learning.components import Sent
from airtune.learning.low_rank import factor_names
from airtune.methods.method import MethodConfig
from airtune.methods.slices import SlicedLora, SlicesConfig
from airtune.methods.views import Client, Setup
from airtune.radio.grant import Grant
from airtune.wire import Payload

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class UnequalRanksConfig(SlicesConfig):
    """Options of methods whose clients have ranks of their own."""

    ranks: list[PositiveInt] | None = Option(
        None,
        min_length=1,
        description="client i has rank number i mod count, at most adapter.rank; default: that one",
    )


class FlexLora(SlicedLora):
    """Clients train the first r_n components; the mean of their products is decomposed anew.

    ``B A = SVD_r(sum_n p_n B_n A_n)``, components by descending singular value, so that a client
    of a lower rank has the best part of the model. The decomposition goes through QR of the
    factors, and no product is formed.

    Source: Bai et al. 2024, federated fine-tuning under heterogeneous tasks and client resources
    (2402.11505). Ours: one scale alpha / r, the server's, for all ranks.
    """

    Config: ClassVar[type[MethodConfig]] = UnequalRanksConfig
    needs_products = True

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for a rank above the adapter's."""
        super().__init__(config, setup)
        if config.ranks is not None and max(config.ranks) > self.components.rank:
            raise UserError(
                f"method.ranks: {max(config.ranks)} is above adapter.rank "
                f"({self.components.rank}), the server's; raise that one."
            )

    def rank(self, client: int) -> int:
        """Return a client's rank."""
        ranks = self.config.ranks or [self.components.rank]
        return int(ranks[client % len(ranks)])

    def upload_bits(self, clients: np.ndarray) -> tuple[ArrayLike, ArrayLike]:
        """Return the sizes of uploads of the clients' own ranks."""
        bits = np.array([self.bits(self.rank(int(client))) for client in clients], dtype=np.float64)
        return bits, bits

    def receive(self, client: Client, payload: Any) -> None:
        """Use the first components; those that are cut are zero and stay so, in both factors."""
        super().receive(client, payload)
        cut = self.rank(client.index)
        for matrix in self.components.parts:
            a, b = factor_names(matrix)
            client.adapter[a] = _first_rows(client.adapter[a], cut)
            client.adapter[b] = _first_rows(client.adapter[b].mT, cut).mT.contiguous()

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the client's own components whole; the federation refuses what exceeds a grant."""
        del grant
        self.keep_private(client)
        own = torch.arange(self.components.rank) < self.rank(client.index)
        kept = own.repeat(len(self.components.parts))
        client.notes["kept"] = float(kept.double().mean())
        return self.message(client, self.components.slices(client.adapter), kept)

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Return the best factors of the weighted mean of products."""
        total = sum(each.weight for each in sent)
        new: Adapter = {}
        for matrix in self.components.parts:
            products = [(each.weight / total, self.product(each, matrix)) for each in sent]
            best = low_rank.truncated(low_rank.stacked(products), self.components.rank)
            # Where fewer components arrived than there are, both factors of the others would be
            # zero, and no gradient could revive them.
            unused = best.a.norm(dim=1) == 0
            best.a[unused] = old[factor_names(matrix)[0]][unused]
            new |= dict(zip(factor_names(matrix), best, strict=True))
        return new


def _first_rows(rows: Tensor, count: int) -> Tensor:
    cut = rows.clone()
    cut[count:] = 0.0
    return cut
