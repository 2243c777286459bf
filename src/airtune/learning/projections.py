"""Low-rank projections h = A x of texts: where they are read, and in whose basis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from airtune.errors import UserError

if TYPE_CHECKING:
    from airtune.learning.adapter import AdaptedModel

Gauge = Literal["shared", "procrustes"]


@dataclass(frozen=True)
class Taps:
    """Where the low-rank projections A x are read, and how they are pooled over a text's tokens.

    ``where`` is the last adapted map of the model, or of each layer.
    """

    where: Literal["last", "all"] = "last"
    pooling: Literal["mean", "last"] = "mean"

    def names(self, adapted: Sequence[str]) -> list[str]:
        """Choose among the adapted maps, which come in the order of the model."""
        if self.where == "last":
            return list(adapted[-1:])
        layers = {re.sub(r"(\.\d+\.).*", r"\1", name): name for name in adapted}
        return list(layers.values())

    def pooled(self, read: Tensor, mask: Tensor) -> Tensor:
        """Return [rows, rank] of what a tap read, [slots, rows * length, rank]."""
        each = read.reshape(*mask.shape, -1)
        if self.pooling == "mean":
            weight = mask.unsqueeze(-1).to(each.dtype)
            return (each * weight).sum(1) / weight.sum(1)
        last = mask.cumsum(1).argmax(1)
        return each[torch.arange(len(each), device=each.device), last]


@dataclass(frozen=True)
class Projections:
    """What is sent of the public texts' projections, of ``shape`` [texts, taps, rank].

    Each model's A is a basis of its own. ``gauge`` says what makes projections comparable:
    "shared", one A for all, which equal models with frozen A have; "procrustes", rotations onto
    each other's bases. Texts without projections have NaN.
    """

    taps: Taps
    shape: tuple[int, int, int]
    gauge: Gauge = "shared"

    @classmethod
    def of(cls, model: AdaptedModel, texts: int, taps: Taps, gauge: Gauge) -> Self:
        """Return the projections that a model, the server's, has of so many public texts."""
        return cls(taps, (texts, *_taps_and_rank(model, taps)), gauge)

    def check(self, model: AdaptedModel) -> None:
        """Raise UserError for a model that has no projections, or not such as the server's."""
        if not model.taps:
            raise UserError(
                "method.projection_weight: projections are those of LoRA; use adapter.kind "
                "lora, or set the weight to 0."
            )
        taps, rank = _taps_and_rank(model, self.taps)
        if (taps, rank) != self.shape[1:]:
            raise UserError(
                f"method.projection_weight: '{model.backbone.name}' has {taps} projections "
                f"of rank {rank}, the server's model {self.shape[1]} of rank "
                f"{self.shape[2]}; use tap: last, and equal ranks."
            )

    def constants(self, given: Tensor | None, own: Tensor | None) -> dict[str, Tensor]:
        """Return the objective's "rotation" [taps, rank, rank] of ``given`` into a model's basis.

        ``own`` are the model's projections. Where one of the two is unknown the rotation is NaN,
        so that no projections are learned; where the basis is shared there is none.
        """
        if self.gauge == "shared":
            return {}
        if given is None or own is None:
            _, taps, rank = self.shape
            return {"rotation": torch.full((taps, rank, rank), torch.nan)}
        return {"rotation": rotation(given, own)}

    def combine(
        self, parts: Sequence[tuple[Tensor | None, Tensor]], reference: Tensor | None
    ) -> Tensor:
        """Return the mean over senders of each text's projections, of shape ``shape``.

        A part is texts [n] (None: all) and their projections [n, taps, rank]. Unless the basis is
        shared, each is turned onto the ``reference``, if there is none onto the first sender's.
        """
        total = torch.zeros(self.shape, dtype=torch.float64)
        senders = torch.zeros(len(total), 1, 1, dtype=torch.float64)
        for texts, each in parts:
            rows = torch.arange(len(total)) if texts is None else texts
            if self.gauge == "procrustes":
                whole = torch.full(self.shape, torch.nan)
                whole[rows] = each
                reference = whole if reference is None else reference
                each = torch.einsum("ntr,trs->nts", each, rotation(whole, reference))
            total.index_add_(0, rows, each.double())
            senders.index_add_(0, rows, torch.ones(len(rows), 1, 1, dtype=torch.float64))
        return (total / senders).float()


def rotation(given: Tensor, own: Tensor) -> Tensor:
    """Return the orthogonal R [taps, rank, rank] with ``given R`` nearest to ``own``.

    Both are projections [texts, taps, rank]; texts where one is NaN do not count (orthogonal
    Procrustes: R = U V' of the singular value decomposition of ``given' own``).
    """
    both = ~(given.isnan() | own.isnan()).flatten(1).any(1)
    product = torch.einsum("ntr,nts->trs", given[both].double(), own[both].double())
    left, _, right = torch.linalg.svd(product)
    return (left @ right).float()


def _taps_and_rank(model: AdaptedModel, taps: Taps) -> tuple[int, int]:
    return len(taps.names(list(model.taps))), model.config.rank
