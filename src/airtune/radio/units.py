"""Decibels, watts and the array type that the radio floor passes around."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
# Places in the plane, x + iy in metres, the base station being at 0.
Points = NDArray[np.complex128]

SPEED_OF_LIGHT_M_PER_S = 299_792_458.0


def from_db(value_db: ArrayLike) -> Floats:
    """Return ``10^(value_db / 10)``, a power ratio."""
    return np.asarray(10.0 ** (np.asarray(value_db, dtype=np.float64) / 10.0))


def dbm_to_w(power_dbm: float) -> float:
    """Return watts (or W/Hz for a density in dBm/Hz)."""
    return float(10.0 ** ((power_dbm - 30.0) / 10.0))
