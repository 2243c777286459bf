"""An adapter as rank-one components: slices of the factors that belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from airtune.learning import low_rank
from airtune.learning.low_rank import Factors, factor_names, factors, matrices

Slices = Mapping[str, Tensor]  # of each matrix, [components, width]
Pool = Literal["matrix", "all"]


@dataclass(frozen=True)
class Sent:
    """What one client sent: its weight, which components [components], and their slices."""

    weight: float
    kept: Tensor
    slices: Slices


class Components:
    """The components of all matrices of a LoRA, end to end.

    A slice has, end to end, row i of A and column i of B, or the one of them that is shared.
    ``parts`` are the widths of these by matrix; all matrices have one ``rank``.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], is_shared: Callable[[str], bool]
    ) -> None:
        self.rank = 0
        self.parts: dict[str, tuple[int, ...]] = {}
        self._factors: dict[str, tuple[str, ...]] = {}  # those that are shared
        for matrix in matrices(shapes):
            a, b = factor_names(matrix)
            widths = {a: shapes[a][1], b: shapes[b][0]}
            shared = tuple(name for name in (a, b) if is_shared(name))
            if shared:
                self.rank = shapes[a][0]
                self._factors[matrix] = shared
                self.parts[matrix] = tuple(widths[name] for name in shared)

    def __len__(self) -> int:
        return self.rank * len(self.parts)

    @property
    def names(self) -> set[str]:
        """Names of the tensors that slices are made of."""
        return {name for shared in self._factors.values() for name in shared}

    def slices(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all slices of an adapter, [rank, width] for each matrix."""
        return {
            matrix: torch.cat([_rows(name, adapter[name]) for name in shared], dim=1)
            for matrix, shared in self._factors.items()
        }

    def tensors(self, slices: Slices) -> dict[str, Tensor]:
        """Return the factors that such slices are made of."""
        found = {}
        for matrix, shared in self._factors.items():
            pieces = slices[matrix].split(list(self.parts[matrix]), dim=1)
            for name, piece in zip(shared, pieces, strict=True):
                found[name] = _rows(name, piece).contiguous()
        return found

    def pieces(self, pool: Pool) -> int:
        """Return how many pieces a whole message has."""
        return self.rank if pool == "matrix" else len(self)

    def by_matrix(self, components: Tensor) -> dict[str, Tensor]:
        """Return a tensor [components, ...] by matrix, [rank, ...] each."""
        return dict(zip(self.parts, components.split(self.rank), strict=True))

    def widths(self) -> Tensor:
        """Return how many numbers a slice has, [components]."""
        each = torch.tensor([sum(parts) for parts in self.parts.values()])
        return each.repeat_interleave(self.rank)

    def norms(self, adapter: Mapping[str, Tensor]) -> Tensor:
        """Return ``||b_i|| ||a_i||``, [components]."""
        return torch.cat([low_rank.importance(factors(adapter, m)) for m in self.parts])

    def changes(self, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> Tensor:
        """Return ``||b'_i a'_i - b_i a_i||``, [components]."""
        return torch.cat([low_rank.change(factors(new, m), factors(old, m)) for m in self.parts])

    def ranked(self, squares: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
        """Return what each piece of a message weighs [pieces], and the pieces by importance.

        With pool ``all`` a piece is a component, weighed in the components' own order; with
        ``matrix`` piece j is the j-th best of every matrix. The ranking is [pieces, components of
        a piece].
        """
        if pool == "all":
            order = (squares / self.widths()).argsort(descending=True, stable=True)
            return squares, order[:, None]
        best = squares.view(-1, self.rank).sort(dim=1, descending=True, stable=True)
        first = torch.arange(len(self.parts))[:, None] * self.rank
        return best.values.sum(0), (best.indices + first).mT

    def held(self, squares: Tensor, pool: Pool, parts: Sequence[float]) -> list[float]:
        """Return the shares of all ``squares`` [components] that the best pieces hold.

        ``parts`` say which part of a message's pieces, in the order in which they would be sent;
        where a piece is cut, as much of it counts. Not all squares are zero.
        """
        _, ranking = self.ranked(squares, pool)
        total = torch.cat([squares.new_zeros(1), squares[ranking].sum(1).cumsum(0)]).numpy()
        places = np.linspace(0.0, 1.0, len(total))
        return [float(each) for each in np.interp(parts, places, total / total[-1])]

    def errors(
        self, new: Mapping[str, Tensor], old: Mapping[str, Tensor], kept: Tensor
    ) -> tuple[float, float]:
        """Return ``||D - D_S||_F^2`` and ``||D||_F^2``, D the change of all products; exact."""
        dropped = whole = 0.0
        for matrix, sent in self.by_matrix(kept).items():
            after, before = factors(new, matrix), factors(old, matrix)
            left = low_rank.difference(after.take(~sent), before.take(~sent))
            dropped += low_rank.squared_norm(left)
            whole += low_rank.squared_norm(low_rank.difference(after, before))
        return dropped, whole

    def distance(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        """Return ``||B' A' - B A||_F^2``, summed over matrices; exact."""
        pairs = [low_rank.difference(factors(one, m), factors(other, m)) for m in self.parts]
        return sum(low_rank.squared_norm(pair) for pair in pairs)

    def added(self, old: Slices, sent: Sequence[Sent], over_senders: bool) -> dict[str, Tensor]:
        """Return ``old_i + sum_n w_n d_n,i / Z_i``, Z the weight of who sent i, or 1."""
        new = {}
        for matrix, (sum_, mass) in self._sums(old, sent).items():
            z = torch.where(mass > 0, mass, 1.0) if over_senders else 1.0
            new[matrix] = (old[matrix].double() + sum_ / z).float()
        return new

    def replaced(self, old: Slices, sent: Sequence[Sent], over_senders: bool) -> dict[str, Tensor]:
        """Return the mean of values over who sent them, or with zeros for who did not.

        Without senders a component stays in the first case and is zero in the second.
        """
        new = {}
        for matrix, (sum_, mass) in self._sums(old, sent).items():
            mean = sum_ / torch.where(mass > 0, mass, 1.0)
            if over_senders:
                mean = torch.where(mass > 0, mean, old[matrix].double())
            else:
                mean = sum_ / sum(each.weight for each in sent)
            new[matrix] = mean.float()
        return new

    def _sums(self, old: Slices, sent: Sequence[Sent]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return weighted sums [rank, width] and weights [rank, 1] of what was sent."""
        sums = {
            matrix: (
                torch.zeros_like(rows, dtype=torch.float64),
                torch.zeros(len(rows), 1).double(),
            )
            for matrix, rows in old.items()
        }
        for each in sent:
            for matrix, kept in self.by_matrix(each.kept).items():
                sum_, mass = sums[matrix]
                sum_[kept] += each.weight * each.slices[matrix].double()
                mass[kept] += each.weight
        return sums

    def mean_products(
        self, old: Mapping[str, Tensor], sent: Sequence[Sent], is_change: bool, over_senders: bool
    ) -> dict[str, Factors]:
        """Return each matrix's mean of rank-one pieces, in double precision.

        ``sum_i (sum_n w_n b_n,i a_n,i + rest_i b_i a_i)`` has the weights by which :meth:`added`
        (of changes) or :meth:`replaced` averages rows and columns apart: what is missing there
        is the covariance of each component among those weights (DERIVED). With everything kept it
        is ``sum_n w_n B_n A_n``.
        """
        total = sum(each.weight for each in sent)
        models = [(each, self._model(old, each, is_change)) for each in sent]
        found = {}
        for matrix, (_, mass) in self._sums(self.slices(old), sent).items():
            z = torch.ones_like(mass) if is_change else torch.full_like(mass, total)
            if over_senders:
                z = torch.where(mass > 0, mass, 1.0)
            before = factors(old, matrix).double()
            # Values that are missing count as zeros there, not as what was before.
            rest = (1.0 - mass / z) * float(is_change or over_senders)
            parts = [(1.0, Factors(before.a, before.b * rest.mT))]
            for each, model in models:
                kept = self.by_matrix(each.kept)[matrix]
                own = factors(model, matrix).double().take(kept)
                parts.append((each.weight, Factors(own.a / z[kept], own.b)))
            found[matrix] = low_rank.stacked(parts)
        return found

    def covariance(
        self, old: Mapping[str, Tensor], sent: Sequence[Sent], is_change: bool
    ) -> dict[str, float]:
        """Return how large the covariance of averaging A and B apart is among what was sent.

        ``covariance`` is relative to the mean model's product, ``covariance_of_change`` to that
        product's change from ``old``. What a client did not send is as it was.
        """
        total = sum(each.weight for each in sent)
        models = [(each.weight / total, self._model(old, each, is_change)) for each in sent]
        size = model = moved = 0.0
        for matrix in self.parts:
            each = [(weight, factors(adapter, matrix)) for weight, adapter in models]
            mean = low_rank.mean(each)
            size += low_rank.squared_norm(low_rank.covariance(each))
            model += low_rank.squared_norm(mean)
            moved += low_rank.squared_norm(low_rank.difference(mean, factors(old, matrix)))
        return {
            "covariance": (size / model) ** 0.5 if model else 0.0,
            "covariance_of_change": (size / moved) ** 0.5 if moved else 0.0,
        }

    def _model(self, old: Mapping[str, Tensor], sent: Sent, is_change: bool) -> dict[str, Tensor]:
        """Return the adapter that one client's slices speak of."""
        slices = self.slices(old)
        for matrix, kept in self.by_matrix(sent.kept).items():
            base = slices[matrix][kept] if is_change else 0.0
            slices[matrix][kept] = base + sent.slices[matrix]
        return {**old, **self.tensors(slices)}


def _rows(name: str, tensor: Tensor) -> Tensor:
    """Return a factor with a component in each row, or such rows as the factor."""
    return tensor if ".lora_A." in name else tensor.mT
