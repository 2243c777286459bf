"""Changes of an adapter's components on a coarse grid, by a range coder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire.container import Scalar, WireError
from airtune.wire.entropy import Counts, Reader, Writer
from airtune.wire.payload import Shapes, register
from airtune.wire.rank_slices import SLICES, read_scores, read_whole, whole_arrays

MOST_LEVEL = 255  # no grid is finer than its largest value by this
_CHUNK = 1024  # values that are coded before the counts learn


@dataclass(frozen=True)
class Grid:
    """What a level l stands for: ``sign(l) (|l| step - offset)``, and zero for zero."""

    step: float
    offset: float

    @classmethod
    def of_largest(cls, values: Tensor, order: Tensor, count: int) -> tuple[Tensor, Self]:
        """Return levels [n] of which at most ``count`` are not zero, and their grid.

        ``order`` sorts ``values`` [n] by descending magnitude. The smallest value that stays is at
        half a step or below. The offset is the mean of what rounding would add to a magnitude, so
        that coarse levels stand for the mean of what they were.
        """
        levels = torch.zeros(len(values), dtype=torch.int64)
        sizes = values[order[:count]].abs()
        sizes = sizes[: int((sizes > 0).sum())]  # zeros stay zero
        largest = order[: len(sizes)]
        if len(sizes) == 0:
            return levels, cls(0.0, 0.0)
        # Not so fine that the largest would have to be cut.
        step = max(2.0 * float(sizes[-1]), float(sizes[0]) / MOST_LEVEL)
        own = (sizes / step).round().clamp(1, MOST_LEVEL)
        levels[largest] = (own * values[largest].sign()).long()
        offset = float((own * step - sizes).mean())
        return levels, cls(step, offset)

    def values(self, levels: Tensor) -> Tensor:
        """Return the numbers that levels stand for, of the same shape."""
        step, offset = torch.tensor([self.step, self.offset])  # as they travel
        return levels.sign() * (levels.abs() * step - offset)


@register
@dataclass(frozen=True)
class CodedChanges:
    """Slices of several matrices on one grid, and whole tensors beside them.

    ``levels`` are those of each matrix, [rank, width], whole and at most ``MOST_LEVEL`` from zero.
    ``scores`` [pieces] and ``tensors`` are as in :class:`RankSlices`, ``dtype`` of the latter.

    On the wire: the grid; magnitudes of all levels end to end, coded by counts that both sides keep
    of those before; a bit for the sign of each that is not zero.
    """

    levels: Mapping[str, Tensor]
    grid: Grid
    scores: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    kind: ClassVar[int] = 6

    @property
    def kept(self) -> Tensor:
        """Which components are there, [components]: all."""
        return torch.ones(sum(len(each) for each in self.levels.values()), dtype=torch.bool)

    @cached_property
    def slices(self) -> dict[str, Tensor]:
        """Values of each matrix, [rank, width]."""
        return {name: self.grid.values(each) for name, each in self.levels.items()}

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return the grid, the coded levels, scores and whole tensors."""
        flat = _joined(self.levels).numpy()
        sizes = np.abs(flat)
        largest = int(sizes.max(initial=0))
        writer = Writer()
        counts, first = _counts(largest), np.zeros(_CHUNK, dtype=np.int64)
        for start in range(0, len(sizes), _CHUNK):
            chunk = sizes[start : start + _CHUNK]
            writer.code(chunk, counts, first[: len(chunk)])
        writer.code_evenly((flat[sizes > 0] < 0).astype(np.int64), 2)
        arrays = {
            "g": torch.tensor([self.grid.step, self.grid.offset], dtype=torch.float32),
            "m": torch.tensor([largest], dtype=torch.uint8),
            "d": torch.from_numpy(np.frombuffer(writer.finish(), dtype=np.uint8).copy()),
        }
        return {}, arrays | whole_arrays(self.scores, self.tensors, self.dtype)

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept slices of the matrices, and tensors, that ``shapes`` names."""
        del meta
        known = {n.removeprefix(SLICES): s for n, s in shapes.items() if n.startswith(SLICES)}
        if not known or not {"g", "m", "d"} <= set(arrays):
            raise WireError("coded changes are not part of what this method sends.")
        grid, largest, data = arrays["g"], arrays["m"], arrays["d"]
        plain = grid.shape == (2,) and largest.shape == (1,) and data.dim() == 1
        types = grid.dtype, largest.dtype, data.dtype
        if not plain or types != (torch.float32, torch.uint8, torch.uint8):
            raise WireError("coded changes have no grid, or no bytes.")
        if not bool(torch.isfinite(grid).all()):
            raise WireError("the grid is not finite.")
        extents = {name: (shape[0], sum(shape[1:])) for name, shape in known.items()}
        flat = _read(data.numpy().tobytes(), sum(map(math.prod, extents.values())), int(largest))
        pieces = torch.from_numpy(flat).split([math.prod(each) for each in extents.values()])
        levels = {
            name: piece.view(extents[name]) for name, piece in zip(extents, pieces, strict=True)
        }
        tensors, dtype = read_whole(arrays, shapes)
        return cls(
            levels,
            Grid(float(grid[0]), float(grid[1])),
            read_scores(arrays, shapes),
            tensors,
            dtype,
        )

    def numbers(self) -> Iterable[Tensor]:
        """Return what has to be finite."""
        yield from self.slices.values()
        yield from self.tensors.values()
        if self.scores is not None:
            yield self.scores


def coded_bits(levels: Tensor) -> float:
    """Return about how many bits levels [n] take: the entropy of magnitudes, a bit for a sign."""
    sizes = levels.abs()
    counts = torch.bincount(sizes).double()
    there = counts[counts > 0]
    entropy = -float((there * (there / there.sum()).log2()).sum())
    return entropy + int((sizes > 0).sum())


def _joined(levels: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0).long(), *(each.reshape(-1) for each in levels.values())])


def _counts(largest: int) -> Counts:
    """Return counts before the first value: each magnitude half as likely as the one below."""
    return Counts(np.maximum(0.5 ** np.arange(1, largest + 2), 1e-3)[None])


def _read(data: bytes, total: int, largest: int) -> np.ndarray:
    """Return levels [total]; raise WireError for bytes that were not written this way."""
    reader = Reader(data)
    counts, first = _counts(largest), np.zeros(_CHUNK, dtype=np.int64)
    chunks = []
    for start in range(0, total, _CHUNK):
        asked = first[: min(_CHUNK, total - start)]
        chunks.append(reader.code(asked, counts, asked))
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *chunks])
    negative = reader.code_evenly(np.zeros(int((sizes > 0).sum()), dtype=np.int64), 2)
    if not reader.is_at_end():
        raise WireError("there are more bytes than the coded changes take.")
    sizes[sizes > 0] *= 1 - 2 * negative
    return sizes
