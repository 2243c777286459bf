"""Dividing the uplink spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, rate_bps
from airtune.radio.units import Floats


def equal_shares(count: int, bandwidth_hz: float) -> Floats:
    """Return ``B / count`` for each client, in Hz."""
    return np.full(count, bandwidth_hz / max(count, 1))


def min_max_delay(
    payload_bits: ArrayLike,
    snr_hz: Floats,
    compute_seconds: ArrayLike,
    bandwidth_hz: float,
    model: RateModel,
) -> tuple[Floats, Floats]:
    """Return shares (Hz) and finish times (s) of the split whose last client finishes first.

    minimise  max_k ( t_k + s_k / r_k(b_k) )   subject to  sum b_k <= B

    Bisection on the finish time with the closed-form inverse of the rate inside. All finish
    together, unless a client's power, not its share, is what holds it back: then the others
    divide the spectrum that it cannot use. Every ``snr_hz`` must be positive.
    """
    bits = np.broadcast_to(np.maximum(payload_bits, 1.0), snr_hz.shape)
    start = np.broadcast_to(np.asarray(compute_seconds, dtype=np.float64), snr_hz.shape)

    def shares(finish: float) -> Floats:
        return bandwidth_for_rate_hz(bits / np.maximum(finish - start, 1e-12), snr_hz, model)

    equal = equal_shares(snr_hz.size, bandwidth_hz)
    late = float(np.max(start + bits / rate_bps(equal, snr_hz, model)))
    early = float(np.max(start + bits / rate_bps(bandwidth_hz, snr_hz, model)))
    if shares(early).sum() <= bandwidth_hz:
        late = early
    while late - early > 1e-12 * late:
        middle = 0.5 * (early + late)
        if not early < middle < late:
            break
        if shares(middle).sum() <= bandwidth_hz:
            late = middle
        else:
            early = middle
    width = shares(late)
    if not np.isfinite(width).all():
        width = equal
    # More spectrum never slows a client, so what is left over goes to all in proportion.
    width = width * (bandwidth_hz / width.sum())
    return width, start + bits / rate_bps(width, snr_hz, model)
