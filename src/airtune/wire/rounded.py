"""Whole tensors of changes, each number a few bits beside one scale of its tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, get_args

import numpy as np
import torch
from torch import Tensor

from airtune.wire.bits import pack, packed_bytes, unpack
from airtune.wire.container import Scalar, WireError
from airtune.wire.logits import ValueBits
from airtune.wire.payload import Shapes, register

_STEPS, _LEVELS = "s", "v"  # the latter with the bits of a number behind it


@register
@dataclass(frozen=True)
class RoundedChanges:
    """Changes of named tensors, rounded to ``bits`` each, 2 to 8, symmetric around zero.

    A tensor's step is its largest change over ``2**(bits - 1) - 1``, so zero stays zero and the
    largest is exact. All tensors that both sides know are there, in the order of their names: so
    no name travels.
    """

    tensors: Mapping[str, Tensor]
    bits: int
    kind: ClassVar[int] = 7

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return the tensors' steps in float32, and all levels end to end."""
        largest = 2 ** (self.bits - 1) - 1
        steps, levels = [], []
        for name in sorted(self.tensors):
            values = self.tensors[name].double().reshape(-1)
            # Rounded to float32 as it travels, so that both sides compute with the same number.
            step = np.float32(float(values.abs().max()) / largest) if values.numel() else 0.0
            steps.append(float(step))
            own = values / float(step) if step > 0 else torch.zeros_like(values)
            levels.append(own.round().clamp(-largest, largest).numpy().astype(np.int64) + largest)
        codes = np.concatenate(levels) if levels else np.zeros(0, dtype=np.int64)
        return {}, {
            _STEPS: torch.tensor(steps, dtype=torch.float32),
            _LEVELS + str(self.bits): pack(codes, self.bits),
        }

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept levels and steps of all tensors in ``shapes``."""
        del meta
        widths = [bits for bits in get_args(ValueBits) if _LEVELS + str(bits) in arrays]
        steps = arrays.get(_STEPS)
        if len(arrays) != 2 or len(widths) != 1 or widths[0] > 8 or steps is None:
            raise WireError("rounded changes are one list of levels, and one of steps.")
        if steps.dtype != torch.float32 or tuple(steps.shape) != (len(shapes),):
            raise WireError(f"the message does not hold the steps of {len(shapes)} tensors.")
        if not bool(torch.isfinite(steps).all()) or bool((steps < 0).any()):
            raise WireError("a step is negative or not finite.")
        bits, names = widths[0], sorted(shapes)
        sizes = [int(np.prod(shapes[name], dtype=np.int64)) for name in names]
        largest = 2 ** (bits - 1) - 1
        codes = unpack(arrays[_LEVELS + str(bits)], sum(sizes), bits) - largest
        if codes.size and int(codes.max()) > largest:
            raise WireError("a level is beyond those that its bits are used for.")
        tensors, start = {}, 0
        for name, size, step in zip(names, sizes, steps.tolist(), strict=True):
            own = (codes[start : start + size] * step).astype(np.float32)
            tensors[name] = torch.from_numpy(own).view(shapes[name])
            start += size
        return cls(tensors, bits)

    def numbers(self) -> Iterable[Tensor]:
        """Return the changes."""
        return self.tensors.values()


def rounded_bytes(sizes: Iterable[int], bits: int) -> int:
    """Return the bytes of levels and steps of tensors of these sizes, without the container's."""
    known = list(sizes)
    return packed_bytes(sum(known), bits) + 4 * len(known)
