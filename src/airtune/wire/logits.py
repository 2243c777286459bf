"""Some of the logits of each prediction: which entries, and their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire import container
from airtune.wire.bits import Scale, pack, packed_bytes, unpack, width_of
from airtune.wire.container import Scalar, WireError
from airtune.wire.payload import Shapes, register

ValueBits = Literal[2, 3, 4, 5, 6, 8, 16, 32]
_LIST, _BITMAP, _DENSE = range(3)
_LOPSIDED, _SMALL = 64, 1 << 20
_FLOATS = {16: torch.float16, 32: torch.float32}


@register
@dataclass(frozen=True)
class SparseLogits:
    """Entries of logits, class logits of texts or token logits, at some predictions ("positions").

    ``values`` and ``index`` are [positions, k], each position's entries by ascending index; behind
    a position's last entry stand -inf and 0. ``width`` is the number of classes, or of tokens.
    ``texts`` are the public texts that the positions belong to, ascending, None for all of them.
    ``rest`` [positions] is what every entry not listed is to be taken for, None for nothing.
    ``projections`` [texts, taps, rank] are low-rank projections of the texts.

    On the wire: values with 2 to 8 (uniform, one scale for all), 16 or 32 bits; which entries, as a
    list of ``ceil(log2 width)`` bits each or as a bitmap, whichever is shorter, and nothing where
    all are there; projections likewise with ``projection_bits``.
    """

    values: Tensor
    index: Tensor
    width: int
    value_bits: ValueBits = 16
    texts: Tensor | None = None
    rest: Tensor | None = None
    projections: Tensor | None = None
    projection_bits: ValueBits = 16
    kind: ClassVar[int] = 2

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return header, counts if they differ, index, values and what else is there."""
        there = torch.isfinite(self.values)
        counts = there.sum(1)
        positions, k = len(counts), _largest(counts)
        varying = bool((counts != k).any())
        coding = _coding(positions, int(counts.sum()), k, self.width)
        header = [self.width, positions, k, coding, self.value_bits]
        arrays: dict[str, Tensor] = {"n": torch.tensor(header, dtype=torch.int32)}
        if varying:
            arrays["c"] = pack(counts.numpy(), width_of(k + 1))
        arrays |= self._index_arrays(there, coding)
        arrays |= _number_arrays("v", self.values[there], self.value_bits)
        if self.texts is not None:
            arrays["t"] = self.texts.to(torch.int32)
        if self.rest is not None:
            arrays["r"] = self.rest.to(torch.float16)
        if self.projections is not None:
            shape = torch.tensor([*self.projections.shape, self.projection_bits])
            arrays["d"] = shape.to(torch.int32)
            arrays |= _number_arrays("h", self.projections.reshape(-1), self.projection_bits)
        return {}, arrays

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept entries of the logits that ``shapes`` names: "logits" [positions, width]."""
        del meta
        most, width = _known(shapes, "logits", 2)
        header = _ints(arrays, "n", 5)
        if header[0] != width or not 0 <= header[1] <= most or not 0 <= header[2] <= width:
            raise WireError(
                f"logits of {header[1]} positions, {header[2]} of {header[0]} entries each, do not "
                f"fit {most} positions of {width}."
            )
        _, positions, k, coding, value_bits = header
        counts = np.full(positions, k)
        if "c" in arrays:
            counts = unpack(arrays["c"], positions, width_of(k + 1))
        if counts.max(initial=0) > k:
            raise WireError("a position claims more entries than the message allows.")
        total = int(counts.sum())
        # Positions share one width in memory: a few long ones must not make that huge.
        if positions * k > _LOPSIDED * total + _SMALL:
            raise WireError(f"{total} entries at {positions} positions, up to {k}, are lopsided.")
        # First what is there, then room for it: a header alone must not take memory.
        listed = _read_numbers(arrays, "v", total, value_bits)
        entries = _read_index(arrays, coding, counts, positions, width)
        there = np.arange(k) < counts[:, None]
        index = np.zeros((positions, k), dtype=np.int64)
        index[there] = entries
        values = torch.full((positions, k), -torch.inf)
        values[torch.from_numpy(there)] = listed
        texts = _read_texts(arrays, shapes)
        rest = None
        if "r" in arrays:
            rest = arrays["r"]
            if rest.shape != (positions,) or rest.dtype != torch.float16:
                raise WireError(f"{tuple(rest.shape)} rest values for {positions} positions.")
            rest = rest.to(torch.float32)
        return cls(
            values,
            torch.from_numpy(index),
            width,
            value_bits,  # type: ignore[arg-type]
            texts,
            rest,
            *_read_projections(arrays, shapes, texts),
        )

    def numbers(self) -> Iterable[Tensor]:
        """Return what has to be finite."""
        yield self.values[self.values != -torch.inf]
        yield from (each for each in (self.rest, self.projections) if each is not None)

    def _index_arrays(self, there: Tensor, coding: int) -> dict[str, Tensor]:
        if coding == _DENSE:
            return {}
        if coding == _LIST:
            return {"i": pack(self.index[there].numpy(), width_of(self.width))}
        bitmap = np.zeros((len(there), self.width), dtype=np.uint8)
        rows = torch.arange(len(there))[:, None].expand_as(there)[there]
        bitmap[rows.numpy(), self.index[there].numpy()] = 1
        return {"i": pack(bitmap, 1)}


def message_bits(
    positions: int,
    k: int,
    width: int,
    value_bits: ValueBits,
    texts: int | None = None,
    projections: tuple[int, ...] | None = None,
    projection_bits: ValueBits = 16,
) -> int:
    """Return the exact size of a message with ``k`` entries at each position, encoded.

    ``texts`` is their number if they are not all; ``projections`` [texts, taps, rank] their shape.
    """
    arrays = {"n": (torch.int32, 5)}
    coding = _coding(positions, positions * k, k, width)
    if coding != _DENSE:
        each = positions * (k * width_of(width) if coding == _LIST else width)
        arrays["i"] = torch.uint8, packed_bytes(each, 1)
    arrays |= _number_sizes("v", positions * k, value_bits)
    if texts is not None:
        arrays["t"] = torch.int32, texts
    if projections is not None:
        arrays["d"] = torch.int32, len(projections) + 1
        arrays |= _number_sizes("h", int(np.prod(projections)), projection_bits)
    return 8 * container.packed_bytes(arrays)


def _largest(counts: Tensor) -> int:
    return int(counts.max()) if len(counts) else 0


def _coding(positions: int, total: int, k: int, width: int) -> int:
    if total == positions * width or k == 0:
        return _DENSE
    return _LIST if total * width_of(width) <= positions * width else _BITMAP


# The names of scales; a name that begins like the one before it is written shorter.
_SCALES = {"v": "s", "h": "p"}


def _number_sizes(name: str, count: int, bits: ValueBits) -> dict[str, tuple[torch.dtype, int]]:
    if bits in _FLOATS:
        return {name: (_FLOATS[bits], count)}
    return {name: (torch.uint8, packed_bytes(count, bits)), _SCALES[name]: (torch.float32, 2)}


def _number_arrays(name: str, numbers: Tensor, bits: ValueBits) -> dict[str, Tensor]:
    if bits in _FLOATS:
        return {name: numbers.to(_FLOATS[bits])}
    scale = Scale.of(numbers, bits)
    levels = pack(scale.levels(numbers), bits)
    return {name: levels, _SCALES[name]: torch.tensor([scale.low, scale.step])}


def _read_numbers(arrays: Mapping[str, Tensor], name: str, count: int, bits: int) -> Tensor:
    if bits in _FLOATS:
        array = arrays.get(name)
        if array is None or array.dtype != _FLOATS[bits] or array.numel() != count:
            raise WireError(f"the message does not hold {count} numbers of {bits} bits.")
        numbers = array.reshape(-1).to(torch.float32)
    else:
        if not 2 <= bits <= 8 or name not in arrays or _SCALES[name] not in arrays:
            raise WireError(f"numbers of {bits} bits are not what a message of logits holds.")
        low, step = _floats(arrays, _SCALES[name], 2)
        scale = Scale(low, step, bits)
        scale.check()
        numbers = scale.values(unpack(arrays[name], count, bits))
    # Here, not in numbers(): an infinite value would pass for a place without entry.
    if not bool(torch.isfinite(numbers).all()):
        raise WireError("it holds numbers that are not finite.")
    return numbers


def _read_index(
    arrays: Mapping[str, Tensor], coding: int, counts: np.ndarray, positions: int, width: int
) -> np.ndarray:
    total = int(counts.sum())
    if coding == _DENSE:
        if total not in (0, positions * width):
            raise WireError("a message without index does not hold all entries.")
        return np.tile(np.arange(width), positions if total else 0)
    if coding not in (_LIST, _BITMAP) or "i" not in arrays:
        raise WireError("the message does not say which entries it holds.")
    if coding == _BITMAP:
        bitmap = unpack(arrays["i"], positions * width, 1).reshape(positions, width)
        if (bitmap.sum(1) != counts).any():
            raise WireError("the bitmap of entries does not agree with their number.")
        return np.nonzero(bitmap)[1]
    index = unpack(arrays["i"], total, width_of(width))
    first = np.cumsum(counts) - counts
    inside = np.ones(total, dtype=bool)
    inside[first[counts > 0]] = False
    if index.max(initial=0) >= width or (np.diff(index, prepend=-1)[inside] <= 0).any():
        raise WireError("the list of entries is not ascending, or names one that does not exist.")
    return index


def _read_texts(arrays: Mapping[str, Tensor], shapes: Shapes) -> Tensor | None:
    if "t" not in arrays:
        return None
    (known,) = _known(shapes, "texts", 1)
    texts = arrays["t"]
    ascending = texts.dtype == torch.int32 and texts.dim() == 1 and bool((texts.diff() > 0).all())
    if not ascending or (len(texts) and not 0 <= texts[0] <= texts[-1] < known):
        raise WireError(f"the texts are not an ascending choice of {known}.")
    return texts.to(torch.int64)


def _read_projections(
    arrays: Mapping[str, Tensor], shapes: Shapes, texts: Tensor | None
) -> tuple[Tensor | None, ValueBits]:
    if "h" not in arrays:
        return None, 16
    *shape, bits = _ints(arrays, "d", 4)
    known = list(_known(shapes, "projections", 3))
    if texts is not None:
        known[0] = len(texts)
    if shape != known:
        raise WireError(f"projections have shape {shape}, expected {known}.")
    numbers = _read_numbers(arrays, "h", int(np.prod(shape)), bits)
    return numbers.view(shape), bits  # type: ignore[return-value]


def _known(shapes: Shapes, name: str, dims: int) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != dims:
        raise WireError(f"{name} are not part of what this method sends.")
    return shapes[name]


def _ints(arrays: Mapping[str, Tensor], name: str, count: int) -> list[int]:
    array = arrays.get(name)
    if array is None or array.dtype != torch.int32 or array.shape != (count,):
        raise WireError("the message's header is missing or of another form.")
    return [int(each) for each in array]


def _floats(arrays: Mapping[str, Tensor], name: str, count: int) -> list[float]:
    array = arrays[name]
    if array.dtype != torch.float32 or array.shape != (count,):
        raise WireError("the message's scale is of another form.")
    if not bool(torch.isfinite(array).all()):
        raise WireError("the message's scale is not finite.")
    return [float(each) for each in array]
