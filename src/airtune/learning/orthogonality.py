"""Supervised learning with a pull of LoRA's components towards orthogonality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from airtune.learning.low_rank import factor_names, matrices, off_diagonal, off_identity
from airtune.learning.phase import Pass, supervised

Form = Literal["off_diagonal", "literal"]


@dataclass(frozen=True)
class Orthogonal:
    """The objective ``F + weight * sum over matrices (R(A) + R(B^T))``, one loss per slot.

    ``off_diagonal``: ``R(M) = ||M M^T - Diag(M M^T)||_F^2``, which leaves lengths alone (DERIVED,
    recommended). ``literal``: ``||M M^T - I||_F^2``, under which all components get one length and
    their norms say nothing of importance. Losses that are reported include the penalty.
    """

    weight: float
    form: Form = "off_diagonal"
    of_a: bool = True  # whether A is among what trains

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]."""
        return supervised(step) + self.weight * self.penalty(step.adapter())

    def penalty(self, adapter: dict[str, Tensor]) -> Tensor:
        """Return the penalty of factors [slots, ...], [slots]."""
        apart = off_diagonal if self.form == "off_diagonal" else off_identity
        terms = []
        for matrix in matrices(adapter):
            a, b = (adapter[name] for name in factor_names(matrix))
            terms.append(apart(b.mT) + (apart(a) if self.of_a else 0.0))
        return torch.stack(terms).sum(0)
