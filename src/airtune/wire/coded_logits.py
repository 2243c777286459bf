"""Sparse logits coded against what both sides already hold."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire.bits import Scale
from airtune.wire.container import Scalar, WireError
from airtune.wire.entropy import Counts, Reader, Writer
from airtune.wire.payload import Shapes, register

_HEADER = struct.Struct("<IIHBff")
_CANDIDATES = 128  # entries whose presence is coded one by one; others are named
_FIRST_BLOCK = 8
MOST_ENTRIES = 256  # of a position that a message may have


@dataclass(frozen=True)
class Reference:
    """What both sides hold of each position: entries [positions, r], the likeliest first.

    ``values`` are -inf and ``index`` 0 where fewer are known. Without any, r is 0.
    """

    values: Tensor
    index: Tensor
    width: int

    @classmethod
    def nothing(cls, positions: int, width: int) -> Self:
        """Return that nothing is known."""
        return cls(torch.zeros(positions, 0), torch.zeros(positions, 0, dtype=torch.int64), width)

    def at(self, positions: Tensor) -> Reference:
        """Return what is held of some of the positions."""
        return Reference(self.values[positions], self.index[positions], self.width)

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each position's candidates, the likeliest first, and their values there.

        Behind the entries that are known of a position (NaN where it has fewer) come those that
        are known of most positions.
        """
        known = np.isfinite(self.values.numpy())
        index = self.index.numpy()
        often = np.bincount(index[known], minlength=self.width)
        usual = np.argsort(-often, kind="stable")[:_CANDIDATES]
        count = min(self.width, _CANDIDATES)
        both = np.concatenate([np.where(known, index, -1), np.tile(usual, (len(index), 1))], axis=1)
        values = np.where(known, self.values.numpy(), np.nan)
        values = np.concatenate([values, np.full((len(index), len(usual)), np.nan)], axis=1)
        # Of an entry that comes twice the first place stays; then what is left moves together.
        order = np.argsort(both, axis=1, kind="stable")
        ranked = np.take_along_axis(both, order, axis=1)
        again = np.zeros_like(both, dtype=bool)
        repeated = np.diff(ranked, axis=1, prepend=-2) == 0
        np.put_along_axis(again, order, repeated, axis=1)
        keep = np.argsort(again | (both < 0), axis=1, kind="stable")[:, :count]
        return np.take_along_axis(both, keep, axis=1), np.take_along_axis(values, keep, axis=1)


@register
@dataclass(frozen=True)
class CodedLogits:
    """Entries of logits as a range coder's bytes, readable beside a :class:`Reference`.

    ``version`` names the reference, ``texts`` how many public texts it is about (which ones, both
    sides know), ``k`` the most entries of a position; values are levels of one scale. Per position
    are coded: the number of entries; for each candidate in the order of the reference whether it
    is there, given its rank; entries beyond the candidates by name; and each entry's level, given
    the level that the reference would have.
    """

    version: int
    texts: int
    k: int
    scale: Scale
    data: bytes
    kind: ClassVar[int] = 3

    @classmethod
    def of(
        cls,
        values: Tensor,
        index: Tensor,
        reference: Reference,
        bits: int,
        version: int,
        texts: int,
    ) -> tuple[Self, float]:
        """Code entries [positions, k] (-inf where none); also return the bits that they cost.

        Those are by the models' probabilities, without header and container.
        """
        there = torch.isfinite(values)
        scale = Scale.of(values[there], bits)
        levels = np.zeros(tuple(values.shape), dtype=np.int64)
        levels[there.numpy()] = scale.levels(values[there])
        writer = Writer()
        k = values.shape[1]
        _walk(writer, reference, k, scale, (there.numpy(), index.numpy(), levels))
        return cls(version, texts, k, scale, writer.finish()), writer.model_bits

    def read(self, reference: Reference) -> tuple[Tensor, Tensor]:
        """Return values and index [positions, k], entries by ascending index."""
        if self.k > reference.width:
            raise WireError(f"{self.k} entries of {reference.width} are too many.")
        reader = Reader(self.data)
        there, index, levels = _walk(reader, reference, self.k, self.scale, None)
        if (there[:, 1:] & (np.diff(index, axis=1) <= 0)).any():
            raise WireError("coded logits name an entry twice.")
        values = self.scale.values(levels)
        values[torch.from_numpy(~there)] = -torch.inf
        return values, torch.from_numpy(index)

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return header and bytes as one array."""
        head = _HEADER.pack(
            self.version, self.texts, self.k, self.scale.bits, self.scale.low, self.scale.step
        )
        return {}, {"": torch.from_numpy(np.frombuffer(head + self.data, np.uint8).copy())}

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept a header whose numbers are possible; entries are read beside the reference."""
        del meta
        if list(arrays) != [""] or arrays[""].dtype != torch.uint8:
            raise WireError("coded logits are one array of bytes.")
        if "logits" not in shapes or "texts" not in shapes:
            raise WireError("coded logits are not part of what this method sends.")
        whole = arrays[""].numpy().tobytes()
        if len(whole) < _HEADER.size:
            raise WireError("coded logits are shorter than their header.")
        version, texts, k, bits, low, step = _HEADER.unpack_from(whole)
        if texts > shapes["texts"][0] or k > shapes["logits"][1] or not 1 <= bits <= 8:
            raise WireError(f"{k} coded entries about {texts} texts are not what is known here.")
        if k > MOST_ENTRIES:
            raise WireError(f"{k} entries of each prediction are too many.")
        scale = Scale(low, step, bits)
        scale.check()
        return cls(version, texts, k, scale, whole[_HEADER.size :])

    def numbers(self) -> Iterable[Tensor]:
        """Return nothing: levels of a finite scale are finite."""
        return ()


_Entries = tuple[np.ndarray, np.ndarray, np.ndarray]  # there, index, level: [positions, k]


def _walk(
    coder: Writer | Reader, reference: Reference, k: int, scale: Scale, given: _Entries | None
) -> _Entries:
    """Code all positions in blocks, each twice as long as the one before, and return them.

    A writer is given the entries, a reader finds them: they go the same way, so they agree.
    """
    positions = len(reference.values)
    candidates, hints = reference.candidates()
    models = _Models(k, candidates.shape[1], 2**scale.bits)
    found = (
        np.zeros((positions, k), dtype=bool),
        np.zeros((positions, k), dtype=np.int64),
        np.zeros((positions, k), dtype=np.int64),
    )
    start, size = 0, _FIRST_BLOCK
    while start < positions:
        block = slice(start, min(start + size, positions))
        own = None if given is None else tuple(each[block] for each in given)
        parts = _walk_block(
            coder, models, candidates[block], hints[block], reference.width, scale, k, own
        )
        for whole, part in zip(found, parts, strict=True):
            whole[block] = part
        start, size = start + size, 2 * size
    return found


class _Models:
    """What has been seen: numbers of entries, presence by rank, levels by expected level."""

    def __init__(self, k: int, ranks: int, levels: int) -> None:
        self.count = Counts(np.full((1, k + 1), 0.5))
        self.present = Counts(np.full((max(ranks, 1), 2), 0.5))
        distance = np.abs(np.arange(levels)[:, None] - np.arange(levels)[None, :])
        # Near the expected level levels are likelier; nothing is expected in the last context.
        near = 2.0 ** -np.minimum(distance, 8)
        self.level = Counts(np.concatenate([near, np.full((1, levels), 0.25)]))


def _walk_block(
    coder: Writer | Reader,
    models: _Models,
    candidates: np.ndarray,
    hints: np.ndarray,
    width: int,
    scale: Scale,
    k: int,
    given: tuple[np.ndarray, ...] | None,
) -> _Entries:
    rows, ranks = candidates.shape
    empty = np.zeros((rows, k), dtype=np.int64)
    there, index, levels = given or (empty.astype(bool), empty, empty)
    present = np.zeros((rows, ranks), dtype=np.int64)
    if given is not None:
        present = _present(candidates, there, index)
    counts = coder.code(there.sum(1), models.count, np.zeros(rows, dtype=np.int64))
    missing = counts.copy()
    chosen = np.zeros((rows, ranks), dtype=bool)
    for rank in range(ranks):
        # If all entries are candidates, those that are needed to the last are there for certain.
        certain = (missing == ranks - rank) & (ranks == width)
        open_ = (missing > 0) & ~certain
        if not missing.any():
            break
        chosen[certain & (missing > 0), rank] = True
        asked = np.flatnonzero(open_)
        context = np.full(len(asked), rank)
        chosen[asked, rank] = coder.code(present[asked, rank], models.present, context)
        missing -= chosen[:, rank]
    at, at_rank = np.nonzero(chosen)
    named_at = np.repeat(np.arange(rows), missing)
    named = coder.code_evenly(_others(candidates, there, index, missing), width)
    all_at, entry = np.concatenate([at, named_at]), np.concatenate([candidates[at, at_rank], named])
    hint = np.concatenate([hints[at, at_rank], np.full(len(named), np.nan)])
    level = coder.code(
        _levels_at(all_at, entry, there, index, levels),
        models.level,
        _expected(hint, scale),
    )
    return _laid_out(all_at, entry, level, rows, k)


def _present(candidates: np.ndarray, there: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return 1 where a candidate is among a position's entries, [rows, ranks]."""
    own = np.where(there, index, -1)
    return (candidates[:, :, None] == own[:, None, :]).any(2).astype(np.int64)


def _others(
    candidates: np.ndarray, there: np.ndarray, index: np.ndarray, missing: np.ndarray
) -> np.ndarray:
    """Return the entries that are no candidates, position after position; or room for them."""
    own = np.where(there, index, -1)
    other = there & ~(own[:, :, None] == candidates[:, None, :]).any(2)
    listed = index[other]
    return listed if len(listed) else np.zeros(int(missing.sum()), dtype=np.int64)


def _levels_at(
    at: np.ndarray, entry: np.ndarray, there: np.ndarray, index: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Return the levels of these entries; zeros for a reader, who has none."""
    if not there.any():
        return np.zeros(len(at), dtype=np.int64)
    place = (there[at] & (index[at] == entry[:, None])).argmax(1)
    return np.asarray(levels[at, place])


def _expected(hint: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the level of what the reference says, one more than the last where it says nothing."""
    last = 2**scale.bits
    if scale.step == 0.0:
        return np.full(len(hint), last)
    level = np.rint((hint.astype(np.float64) - scale.low) / scale.step)
    return np.where(np.isnan(level), last, np.clip(np.nan_to_num(level), 0, last - 1)).astype(int)


def _laid_out(at: np.ndarray, entry: np.ndarray, level: np.ndarray, rows: int, k: int) -> _Entries:
    order = np.lexsort((entry, at))
    at, entry, level = at[order], entry[order], level[order]
    counts = np.bincount(at, minlength=rows)
    place = np.arange(len(at)) - (np.cumsum(counts) - counts)[at]
    there = np.zeros((rows, k), dtype=bool)
    index, levels = np.zeros((rows, k), dtype=np.int64), np.zeros((rows, k), dtype=np.int64)
    there[at, place], index[at, place], levels[at, place] = True, entry, level
    return there, index, levels
