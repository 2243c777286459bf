"""Shifts of frozen weights: what a server adds to adapted linear maps, the same for all clients.

An adapter may carry, beside the tensors that train, ``<matrix>.shift`` [d_out, d_in] of any of its
adapted matrices: the map computes ``(W + shift) x + scale * B A x``. Frozen weights are shared by
everything in a process, so they are never written; a shift is one more product while it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from airtune.learning import low_rank
from airtune.learning.low_rank import factor_names, factors

_SUFFIX = ".shift"


def shift_name(matrix: str) -> str:
    """Return the name of a matrix's shift."""
    return matrix + _SUFFIX


def shifts(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the shifts that an adapter carries, [d_out, d_in] by matrix."""
    return {n.removesuffix(_SUFFIX): t for n, t in adapter.items() if n.endswith(_SUFFIX)}


def without_shifts(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what trains."""
    return {name: tensor for name, tensor in adapter.items() if not name.endswith(_SUFFIX)}


def absorbed(adapter: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return an adapter without shifts that computes the same, its factors of a higher rank.

    ``A' = [A; A_s]``, ``B' = [B, B_s / scale]`` with ``B_s A_s`` the shift, decomposed at its
    numerical rank.
    """
    plain = without_shifts(adapter)
    for matrix, shift in shifts(adapter).items():
        parts = [(1.0, factors(adapter, matrix)), (1.0 / scale, low_rank.decomposed(shift))]
        plain |= dict(zip(factor_names(matrix), low_rank.stacked(parts), strict=True))
    return plain


@dataclass
class Shift:
    """Where an adapted map reads its shift, on its device; None: there is none."""

    device: torch.device
    weight: Tensor | None = None
    source: Tensor | None = None


class Shifts:
    """The shifts of the adapters that are loaded."""

    def __init__(self) -> None:
        self._places: dict[str, Shift] = {}

    def place(self, matrix: str, device: torch.device) -> Shift:
        """Return where the map of this matrix will find its shift."""
        return self._places.setdefault(matrix, Shift(device))

    def load(self, adapters: Sequence[Mapping[str, Tensor]]) -> None:
        """Use the shifts of these adapters, and of none before them.

        Raises ValueError where they are not the same tensors, or of a map that cannot be shifted.
        """
        new = shifts(adapters[0])
        if any(identity(adapter) != identity(adapters[0]) for adapter in adapters):
            raise ValueError("adapters share a pass only if their shifts are the same tensors.")
        if not new.keys() <= self._places.keys():
            raise ValueError("the adapter shifts a map that is not an adapted linear one.")
        for matrix, place in self._places.items():
            source = new.get(matrix)
            if source is not place.source:
                place.source = source
                place.weight = None if source is None else source.to(place.device)


def identity(adapter: Mapping[str, Tensor]) -> frozenset[tuple[str, int]]:
    """Return what two adapters have equal whose shifts are the same tensors."""
    return frozenset((matrix, id(shift)) for matrix, shift in shifts(adapter).items())
