"""Whole tensors, each value in a floating-point type of choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from airtune.wire.container import Scalar, WireError
from airtune.wire.payload import Shapes, register

ValueType = Literal["float32", "float16", "bfloat16"]
_TYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@register
@dataclass(frozen=True)
class Dense:
    """Named float32 tensors, sent with 32 or 16 bits a value; decoding gives float32 again."""

    tensors: Mapping[str, Tensor]
    value_type: ValueType = "float32"
    kind: ClassVar[int] = 1

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return the tensors rounded to the value type."""
        dtype = _TYPES[self.value_type]
        return {}, {name: tensor.to(dtype) for name, tensor in self.tensors.items()}

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept tensors that exist, have the known shape and one floating-point type."""
        del meta
        types = {array.dtype for array in arrays.values()}
        if len(types) > 1 or not types <= set(_TYPES.values()):
            raise WireError(f"a dense payload holds one floating-point type, not {types}.")
        for name, array in arrays.items():
            if name not in shapes:
                raise WireError(f"tensor '{name}' is not part of the shared adapter.")
            if tuple(array.shape) != tuple(shapes[name]):
                raise WireError(
                    f"tensor '{name}' has shape {tuple(array.shape)}, expected {shapes[name]}."
                )
        value_type = next((key for key, dtype in _TYPES.items() if dtype in types), "float32")
        tensors = {name: array.to(torch.float32) for name, array in arrays.items()}
        return cls(tensors, value_type)  # type: ignore[arg-type]

    def numbers(self) -> Iterable[Tensor]:
        """Return the tensors."""
        return self.tensors.values()
