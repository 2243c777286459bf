"""How likely a client sees the base station: 3GPP TR 38.901 table 7.4.2-1."""

from __future__ import annotations

import numpy as np

from airtune.radio.units import Floats


def los_probability(distance_m: Floats, decay_m: float) -> Floats:
    """Return ``18/d + exp(-d/decay) (1 - 18/d)``, and 1 up to 18 m.

    ``decay_m`` is 36 for UMi and 63 for UMa.
    """
    near = 18.0 / np.maximum(distance_m, 18.0)
    return np.asarray(near + np.exp(-distance_m / decay_m) * (1.0 - near))


def rma_los_probability(distance_m: Floats) -> Floats:
    """Return ``exp(-(d - 10) / 1000)``, and 1 up to 10 m: a rural macro cell."""
    return np.exp(-np.maximum(distance_m - 10.0, 0.0) / 1000.0)


def inh_los_probability(distance_m: Floats, office: str) -> Floats:
    """Return what an indoor office has; ``office`` is ``mixed`` (with walls) or ``open``.

    Mixed: 1 up to 1.2 m, ``exp(-(d - 1.2)/4.7)``, from 6.5 m ``0.32 exp(-(d - 6.5)/32.6)``.
    Open: 1 up to 5 m, ``exp(-(d - 5)/70.8)``, beyond 49 m ``0.54 exp(-(d - 49)/211.7)``.
    """
    if office == "mixed":
        near = np.exp(-np.maximum(distance_m - 1.2, 0.0) / 4.7)
        return np.where(distance_m < 6.5, near, 0.32 * np.exp(-(distance_m - 6.5) / 32.6))
    near = np.exp(-np.maximum(distance_m - 5.0, 0.0) / 70.8)
    return np.where(distance_m <= 49.0, near, 0.54 * np.exp(-(distance_m - 49.0) / 211.7))
