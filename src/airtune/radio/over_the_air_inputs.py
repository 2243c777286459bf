"""What over-the-air sums take: numbers that can be added up over channels that can be inverted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from airtune.errors import UserError
from airtune.radio.units import Floats

_ARGUMENTS = ("vectors", "weights", "gain", "mean_gain")


def checked(
    vectors: NDArray[Any],
    weights: ArrayLike,
    gain: ArrayLike,
    mean_gain: ArrayLike,
    threshold: float,
) -> tuple[Floats, Floats, Floats]:
    """Return weights [clients], gains [clients, subchannels] and mean gains [clients, 1].

    Raises UserError for shapes that do not fit, numbers that are not finite, negative weights, and
    channels without power unless a ``threshold`` leaves them out.
    """
    lam, mean = (np.asarray(each, dtype=np.float64) for each in (weights, mean_gain))
    power = np.asarray(gain, dtype=np.float64)
    power = power[:, None] if power.ndim == 1 else power
    clients = vectors.shape[0]
    if vectors.ndim != 2 or not vectors.size:
        raise UserError(f"vectors must be [clients, d] and not empty, not {vectors.shape}.")
    if lam.shape != (clients,) or mean.shape != (clients,) or power.shape[:-1] != (clients,):
        raise UserError(f"weights, gain and mean_gain must be those of {clients} clients.")
    for name, numbers in zip(_ARGUMENTS, (vectors, lam, power, mean), strict=True):
        # Both are NaN if any number is.
        if not np.isfinite([numbers.min(initial=0.0), numbers.max(initial=0.0)]).all():
            raise UserError(f"{name} must be finite numbers; there is one that is not.")
    if (lam < 0).any() or not lam.any():
        raise UserError("weights must not be negative, nor all zero.")
    if (mean <= 0).any() or (power < 0).any() or (threshold == 0 and (power == 0).any()):
        raise UserError(
            "gain and mean_gain must be positive: a channel without power cannot be inverted; "
            "a threshold above 0 leaves it out."
        )
    return lam, power, mean[:, None]


def check_band(power_w: float, noise_w_per_hz: float, bandwidth_hz: float) -> None:
    """Raise UserError for a power or a bandwidth that is not above 0, or a negative noise."""
    for name, value in (("power_w", power_w), ("bandwidth_hz", bandwidth_hz)):
        if not (value > 0.0 and math.isfinite(value)):
            raise UserError(f"{name} is {value:g}; it must be a finite number above 0.")
    if not (noise_w_per_hz >= 0.0 and math.isfinite(noise_w_per_hz)):
        raise UserError(f"noise_w_per_hz is {noise_w_per_hz:g}; it must be a finite number from 0.")
