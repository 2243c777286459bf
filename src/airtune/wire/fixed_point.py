"""Numbers as whole steps modulo 2^32, so that a sum is exact whatever its order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class FixedPoint:
    """Weighted numbers of at most ``count`` senders in two's complement of 32 bits.

    ``q_n = round(2^k p_n min(max(x_n, -c), c)) mod 2^32``, ``mean = sum_n q_n / (2^k sum_n p_n)``,
    with c = ``clip``. k is the largest with ``2^k c + count / 2 <= 2^31 - 1``: as the shares p_n of
    all examples add up to 1 at most, no sum wraps, and headroom costs rounding's half steps only.

    Of numbers within c, a mean of n senders errs by at most ``n / (2^{k + 1} sum_n p_n)``. DERIVED.
    """

    clip: float
    count: int

    def __post_init__(self) -> None:
        """Raise ValueError for bounds that leave no step to count in."""
        if not (0.0 < self.clip < 2.0**30 and 0 < self.count < 2**30):
            raise ValueError(f"no 32-bit sum of {self.count} senders holds numbers to {self.clip}.")

    @property
    def places(self) -> int:
        """Binary places behind the point, k."""
        _, exponent = math.frexp((2**31 - 1 - self.count / 2) / self.clip)
        return exponent - 1

    def error(self, senders: int, weight: float) -> float:
        """Return the largest error of a mean of so many senders, whose shares add to ``weight``."""
        return math.ldexp(senders / weight, -self.places - 1)

    def words(self, values: np.ndarray, weight: float) -> Words:
        """Return the steps of ``values`` [numbers] times ``weight``, 0 to 1, modulo 2^32.

        Raises ValueError for numbers that are not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError("numbers that are not finite have no fixed point.")
        bounded = np.clip(values.astype(np.float64), -self.clip, self.clip)
        steps = np.rint(np.ldexp(bounded * weight, self.places)).astype(np.int64)
        return steps.astype(np.uint32)  # the low 32 bits, which is modulo 2^32

    def clipped(self, values: np.ndarray) -> int:
        """Return how many numbers are beyond the bound."""
        return int(np.count_nonzero(np.abs(values) > self.clip))

    def mean(self, total: Words, weight: float) -> NDArray[np.float64]:
        """Return the mean [numbers] of a sum of words of senders whose shares add to ``weight``."""
        steps = total.view(np.int32).astype(np.float64)
        return np.ldexp(steps / weight, -self.places)
