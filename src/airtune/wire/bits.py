"""Integers of a few bits each, packed into bytes; and numbers rounded to such integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from airtune.wire.container import WireError


def width_of(count: int) -> int:
    """Return the bits of a number below ``count``: ``ceil(log2 count)``."""
    return max(count - 1, 0).bit_length()


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes of ``count`` integers of ``bits`` bits."""
    return -(-count * bits // 8)


def pack(values: np.ndarray, bits: int) -> Tensor:
    """Return non-negative integers below ``2**bits`` as bytes, the lowest bit first."""
    flat = np.asarray(values, dtype=np.int64).reshape(-1, 1)
    each = (flat >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(each.astype(np.uint8), bitorder="little"))


def unpack(data: Tensor, count: int, bits: int) -> np.ndarray:
    """Return what ``pack`` was given, [count]; raise WireError if the bytes are not as many."""
    if data.dtype != torch.uint8 or data.numel() != packed_bytes(count, bits):
        raise WireError(f"{data.numel()} bytes do not hold {count} numbers of {bits} bits.")
    each = np.unpackbits(data.numpy().reshape(-1), count=count * bits, bitorder="little")
    return each.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64))


@dataclass(frozen=True)
class Scale:
    """Numbers ``low + step * level``, level from 0 to ``2**bits - 1``: one scale for all."""

    low: float
    step: float
    bits: int

    @classmethod
    def of(cls, values: Tensor, bits: int) -> Scale:
        """Return the scale from the smallest to the largest of finite ``values``."""
        if values.numel() == 0:
            return cls(0.0, 0.0, bits)
        # Rounded to float32 as they travel, so that both sides compute with the same two numbers.
        low, high = np.float32(values.min().item()), np.float32(values.max().item())
        return cls(float(low), float(np.float32((high - low) / (2**bits - 1))), bits)

    def check(self) -> None:
        """Raise WireError if one of the numbers that it stands for is not finite in float32."""
        span = self.step * (2**self.bits - 1)
        ends = self.low, self.low + span, span
        largest = float(np.finfo(np.float32).max)
        if not all(abs(end) <= largest for end in ends):  # NaN fails too
            raise WireError("the scale of numbers is not finite.")

    def levels(self, values: Tensor) -> np.ndarray:
        """Return the nearest levels, as integers."""
        if self.step == 0.0:
            return np.zeros(tuple(values.shape), dtype=np.int64)
        nearest = ((values.double() - self.low) / self.step).round().clamp(0, 2**self.bits - 1)
        return nearest.numpy().astype(np.int64)

    def values(self, levels: np.ndarray) -> Tensor:
        """Return the numbers that levels stand for, float32."""
        return torch.from_numpy((self.low + self.step * levels).astype(np.float32))
