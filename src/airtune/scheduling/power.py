"""Transmit power: as little as a rate or its energy needs, and spread over sub-channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import lambertw

from airtune.radio.rate import RateModel, snr_for_rate_hz
from airtune.radio.units import Floats, from_db


def least_power_w(
    rate_bps: ArrayLike, bandwidth_hz: ArrayLike, snr_hz: Floats, power_w: float, model: RateModel
) -> Floats:
    """Return the smallest power in W that carries a rate, [n]; inf where ``power_w`` does not.

    ``P snr_for_rate_hz(b, R) / snr_hz``, with ``snr_hz`` in Hz what the link has at ``power_w``. An
    upload of s bits by a deadline needs ``R = s / (deadline - t_cmp)``. The power never falls to
    where the link would be in outage on a single resource block.
    """
    least = float(from_db(model.min_snr_db)) * model.resource_block_hz * (1.0 + 1e-9)
    needed = np.maximum(snr_for_rate_hz(bandwidth_hz, rate_bps, model), least)
    share = needed / snr_hz
    # A rate that full power just carries must not fail by rounding.
    return np.where(share <= 1.0 + 1e-12, power_w * np.minimum(share, 1.0), np.inf)


def least_energy_w(
    bandwidth_hz: ArrayLike, snr_hz: Floats, power_w: float, circuit_power_w: float,
    model: RateModel,
) -> Floats:  # fmt: skip
    """Return the power in W at which a bit costs least energy, [n], at most ``power_w``.

    minimise  (p + p_circuit) / R(p)

    ``1 + x = exp(1 + W_0((x_c - 1) / e))`` with ``x = snr_hz p / (P gap b)`` and ``x_c`` the same
    of the circuit's power (DERIVED), between the SNR below which power is not spread and the one
    that reaches the cap. Energy falls up to there and rises behind, so under a deadline the best
    is the larger of this and :func:`least_power_w`. Without circuit power it is where the band is
    just filled: less power costs no less energy.
    """
    width = np.asarray(bandwidth_hz, dtype=np.float64)
    gap, densest = float(from_db(model.gap_db)), float(from_db(model.min_snr_db))
    per_watt = snr_hz / (power_w * gap * width)  # x of a watt
    # W is not found at its branch point itself, which no circuit power would be.
    start = np.maximum((circuit_power_w * per_watt - 1.0) / np.e, -np.exp(-1.0) + 1e-15)
    x = np.expm1(1.0 + lambertw(start, k=0).real)
    lowest = densest / gap
    highest = max(lowest, float(np.expm1(model.max_efficiency * np.log(2.0))))
    return np.asarray(np.minimum(np.clip(x, lowest, highest) / per_watt, power_w))


def water_filling(gains: Floats, power_w: ArrayLike) -> Floats:
    """Return the powers in W of sub-channels, [..., channels], that carry most together.

    maximise  sum_i log2(1 + p_i gain_i)   subject to  sum_i p_i <= P

    ``p_i = max(0, mu - 1 / gain_i)`` with the level mu that spends P (FOUND: Cover and Thomas,
    Elements of Information Theory, parallel Gaussian channels). ``gains`` are SNR per watt (an SNR
    gap divides them), ``power_w`` is [...]. The level is found by sorting, not by search; a channel
    of gain 0 gets nothing. Raises ValueError if all gains of a row are 0.
    """
    gains = np.asarray(gains, dtype=np.float64)
    if not (gains > 0).any(axis=-1).all():
        raise ValueError("gains: at least one sub-channel of each client must have a positive gain")
    power = np.asarray(power_w, dtype=np.float64)[..., None]
    with np.errstate(divide="ignore"):
        floor = 1.0 / gains
    floor = floor - floor.min(axis=-1, keepdims=True)  # or little power is lost beside high floors
    ordered = np.sort(floor, axis=-1)
    count = np.arange(1, gains.shape[-1] + 1)
    level = (power + np.cumsum(ordered, axis=-1)) / count
    # With k channels the level must stand above the k-th floor: that holds up to the right k.
    used = np.maximum((level > ordered).sum(axis=-1, keepdims=True), 1)
    return np.maximum(np.take_along_axis(level, used - 1, axis=-1) - floor, 0.0)
