"""All numbers of a dense upload in one list of 32-bit words that mean nothing alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire.container import Scalar, WireError
from airtune.wire.fixed_point import Words
from airtune.wire.payload import Shapes, register

_WORDS = "m"


@register
@dataclass(frozen=True)
class Masked:
    """``words`` [numbers] of all tensors that both sides know, in the order of their names.

    So no name travels; four bytes a number.
    """

    words: Words
    kind: ClassVar[int] = 8

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return the words, as the integers of the same bits."""
        return {}, {_WORDS: torch.from_numpy(self.words.view(np.int32))}

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept a word for every number in ``shapes``."""
        found = arrays.get(_WORDS)
        if meta or found is None or len(arrays) != 1 or found.dtype != torch.int32:
            raise WireError("a masked payload is one list of 32-bit words.")
        count = sum(prod(shape) for shape in shapes.values())
        if tuple(found.shape) != (count,):
            raise WireError(
                f"a masked payload of shape {tuple(found.shape)} is not one of {count} words."
            )
        return cls(found.numpy().view(np.uint32))

    def numbers(self) -> Iterable[Tensor]:
        """Return nothing: every word may be part of a sum."""
        return ()


def flat(tensors: Mapping[str, Tensor]) -> np.ndarray:
    """Return all numbers of tensors [numbers], in the order of their names."""
    parts = [tensors[name].detach().cpu().float().reshape(-1) for name in sorted(tensors)]
    return torch.cat([torch.zeros(0), *parts]).numpy()


def shaped(numbers: np.ndarray, shapes: Shapes) -> dict[str, Tensor]:
    """Return the float32 tensors whose numbers :func:`flat` put end to end."""
    tensors, start = {}, 0
    for name in sorted(shapes):
        end = start + prod(shapes[name])
        own = numbers[start:end].astype(np.float32)
        tensors[name] = torch.from_numpy(own).view(shapes[name])
        start = end
    return tensors
