"""HetLoRA: clients of unequal ranks, zero padding, and weights by what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airtune.learning import low_rank
from airtune.learning.components import Sent
from airtune.methods.flexlora import FlexLora

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class HetLora(FlexLora):
    """Factors of unequal ranks are padded with zeros and averaged by the norms of their products.

    ``w_n = ||B_n A_n||_F / sum_m ||B_m A_m||_F``, then ``A <- sum_n w_n pad(A_n)``, B likewise.

    Source: Cho et al. 2024, heterogeneous LoRA for federated fine-tuning (2401.06432): truncation,
    padding and sparsity-weighted aggregation. Left out: the pruning of a client's own rank.
    """

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Return the weighted mean of padded factors; in a round without change, the plain one."""
        norms = [
            sum(low_rank.squared_norm(self.product(each, m)) for m in self.components.parts) ** 0.5
            for each in sent
        ]
        weights = norms if sum(norms) > 0.0 else [each.weight for each in sent]
        weighted = [
            Sent(weight / sum(weights), each.kept, each.slices)
            for weight, each in zip(weights, sent, strict=True)
        ]
        slices = self.components.replaced(self.components.slices(old), weighted, False)
        return self.components.tensors(slices)
