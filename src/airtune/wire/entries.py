"""Some entries of tensors: which, and their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire.bits import pack, packed_bytes, unpack, width_of
from airtune.wire.container import Scalar, WireError
from airtune.wire.payload import Shapes, register

_FLOATS = {16: torch.float16, 32: torch.float32}
_WHOLE = "whole."
SPARSE = "sparse."  # how a tensor of which entries are sent is named among known shapes


@register
@dataclass(frozen=True)
class SparseTensors:
    """Entries of named tensors, and whole tensors beside them.

    ``index`` are places in the flattened tensor, ascending, ``values`` the numbers there, both
    [entries]. Every tensor that is known as "sparse.NAME" is named in every message.

    On the wire, for each tensor: places as numbers of ``ceil(log2 size)`` bits or as a bitmap,
    whichever is shorter, and nothing where all are there; all values together with 16 or 32 bits.
    """

    index: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    value_bits: Literal[16, 32] = 32
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    kind: ClassVar[int] = 5

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return counts, places, values and whole tensors."""
        dtype = _FLOATS[self.value_bits]
        counts = torch.tensor([len(each) for each in self.index.values()], dtype=torch.int32)
        arrays = {"n": counts}
        for number, (name, places) in enumerate(self.index.items()):
            size = self.sizes[name]
            if len(places) == size:
                arrays[f"i{number}"] = torch.zeros(0, dtype=torch.uint8)
            elif _as_list(len(places), size):
                arrays[f"i{number}"] = pack(places.numpy(), width_of(size))
            else:
                bitmap = np.zeros(size, dtype=np.uint8)
                bitmap[places.numpy()] = 1
                arrays[f"i{number}"] = pack(bitmap, 1)
        arrays["v"] = torch.cat([torch.zeros(0), *self.values.values()]).to(dtype)
        return {}, arrays | {_WHOLE + name: t.to(dtype) for name, t in self.tensors.items()}

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept entries of the tensors, and whole ones, that ``shapes`` names."""
        del meta
        sizes = {n.removeprefix(SPARSE): prod(s) for n, s in shapes.items() if n.startswith(SPARSE)}
        counts, values = arrays.get("n"), arrays.get("v")
        if counts is None or counts.dtype != torch.int32 or counts.shape != (len(sizes),):
            raise WireError(f"the message does not count the entries of {len(sizes)} tensors.")
        limits = torch.tensor(list(sizes.values()))
        if bool(((counts < 0) | (counts > limits)).any()):
            raise WireError("a tensor has fewer entries than the message claims.")
        bits = {dtype: bits for bits, dtype in _FLOATS.items()}
        if values is None or values.dtype not in bits or values.shape != (int(counts.sum()),):
            raise WireError(f"the message does not hold {int(counts.sum())} values.")
        index = {
            name: _places(arrays.get(f"i{number}"), int(count), size)
            for number, (count, (name, size)) in enumerate(
                zip(counts.tolist(), sizes.items(), strict=True)
            )
        }
        pieces = values.to(torch.float32).split(counts.tolist())
        whole = {}
        for name, array in arrays.items():
            if name.startswith(_WHOLE):
                plain = name.removeprefix(_WHOLE)
                is_tensor = plain in shapes and not plain.startswith(SPARSE)
                if not is_tensor or tuple(array.shape) != tuple(shapes[plain]):
                    raise WireError(f"tensor '{plain}' is not part of the shared adapter as it is.")
                if array.dtype not in bits:
                    raise WireError(f"tensor '{plain}' is not of a floating-point type.")
                whole[plain] = array.to(torch.float32)
        width: Literal[16, 32] = 16 if values.dtype == torch.float16 else 32
        return cls(index, dict(zip(sizes, pieces, strict=True)), sizes, width, whole)

    def numbers(self) -> Iterable[Tensor]:
        """Return what has to be finite."""
        yield from self.values.values()
        yield from self.tensors.values()


def entries_bits(counts: Mapping[str, int], sizes: Mapping[str, int], value_bits: int) -> int:
    """Return the bits that so many entries add to a message without any."""
    bits = sum(counts.values()) * value_bits
    for name, count in counts.items():
        bits += 8 * packed_bytes(_place_bits(count, sizes[name]), 1)
    return bits


def _as_list(count: int, size: int) -> bool:
    return count * width_of(size) <= size


def _place_bits(count: int, size: int) -> int:
    """Return the bits that say which entries there are; none where all are."""
    if count == size:
        return 0
    return count * width_of(size) if _as_list(count, size) else size


def _places(data: Tensor | None, count: int, size: int) -> Tensor:
    if data is None:
        raise WireError("the message does not say which entries it holds.")
    if count == size:
        return torch.arange(size)
    if _as_list(count, size):
        places = unpack(data, count, width_of(size))
        if places.max(initial=0) >= max(size, 1) or (np.diff(places) <= 0).any():
            raise WireError("places are not ascending, or outside of their tensor.")
    else:
        places = np.flatnonzero(unpack(data, size, 1))
        if len(places) != count:
            raise WireError("the bitmap of entries does not agree with their number.")
    return torch.from_numpy(places)
