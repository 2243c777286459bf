"""Bandwidth to bits per second and back.

``snr_hz`` is ``P g / (N0 F)`` in Hz: the signal-to-noise ratio times the bandwidth, which is
what a link has before anybody decides how much spectrum its power is spread over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy.special import lambertw

from airtune.config import Config
from airtune.radio.units import Bools, Floats, from_db

_LN2 = float(np.log(2.0))


class RateModel(Config):
    """How far a practical link stays below Shannon; Shannon itself is gap 0 and a high cap."""

    gap_db: float = Field(2.0, ge=0, le=20, description="SNR gap of real coding, 2-3 dB for NR")
    max_efficiency: float = Field(
        5.55, gt=0, le=100, description="bit/s/Hz of the best modulation and coding scheme"
    )
    min_snr_db: float = Field(
        -5.0, ge=-30, le=30, description="below this SNR nothing is decoded, so power is kept dense"
    )
    resource_block_hz: float = Field(180e3, gt=0, description="smallest piece of spectrum")


def occupied_hz(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return ``min(b, snr_hz / snr_min)``: power is never spread thinner than ``min_snr_db``."""
    return np.minimum(bandwidth_hz, np.asarray(snr_hz) / from_db(model.min_snr_db))


def rate_bps(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the rate of each link in bit/s; arguments broadcast.

    ``b' min(cap, log2(1 + snr_hz / (gap b')))`` with ``b' = min(b, snr_hz / snr_min)``.
    """
    snr_hz = np.asarray(snr_hz, dtype=np.float64)
    width = occupied_hz(bandwidth_hz, snr_hz, model)
    divisor = np.where((width > 0) & np.isfinite(width), width, 1.0)
    with np.errstate(over="ignore"):
        snr = snr_hz / (from_db(model.gap_db) * divisor)
    return np.asarray(width * np.minimum(model.max_efficiency, np.log1p(snr) / _LN2))


def rate_slope(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the derivative of :func:`rate_bps` by bandwidth, in bit/s per Hz.

    ``log2(1 + x) - x / ((1 + x) ln 2)`` with ``x = snr_hz / (gap b)``; the cap where it binds, and
    zero beyond the bandwidth that power can fill. It never increases with bandwidth.
    """
    width, snr_hz = np.broadcast_arrays(
        np.asarray(bandwidth_hz, dtype=np.float64), np.asarray(snr_hz, dtype=np.float64)
    )
    with np.errstate(over="ignore"):
        x = snr_hz / (from_db(model.gap_db) * np.maximum(width, 1e-300))
    shannon = np.log1p(x) / _LN2
    falls = (1.0 - 1.0 / (1.0 + x)) / _LN2
    capped = shannon >= model.max_efficiency
    slope = np.where(capped, model.max_efficiency, np.minimum(shannon, 1e9) - falls)
    return np.where(width < snr_hz / from_db(model.min_snr_db), slope, 0.0)


def in_outage(snr_hz: ArrayLike, model: RateModel) -> Bools:
    """Return which links fall below ``min_snr_db`` even on a single resource block."""
    return np.asarray(
        np.asarray(snr_hz) < from_db(model.min_snr_db) * model.resource_block_hz, dtype=np.bool_
    )


def bandwidth_for_rate_hz(rate_bps_: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the least bandwidth in Hz that carries a rate; inf where no bandwidth does.

    With ``beta = gap R ln2 / snr_hz`` the spectral efficiency in nats is
    ``s = -W_{-1}(-beta e^-beta) - beta`` and ``b = max(R ln2 / s, R / cap)``.
    Exact inverse of :func:`rate_bps`; arguments broadcast.
    """
    rate, snr_hz = np.broadcast_arrays(
        np.asarray(rate_bps_, dtype=np.float64), np.asarray(snr_hz, dtype=np.float64)
    )
    densest = float(from_db(model.min_snr_db - model.gap_db))
    nats_min = float(np.log1p(densest))
    divisor = np.where(snr_hz > 0, snr_hz, 1.0)
    # The upper clip only meets rates that are refused below; the lower one keeps W finite where
    # the cap has long been binding.
    beta = np.clip(from_db(model.gap_db) * rate * _LN2 / divisor, 1e-300, nats_min / densest)
    nats = np.maximum(-lambertw(-beta * np.exp(-beta), k=-1).real - beta, nats_min)
    # W loses half its digits at its branch point (low SNR): polish log((e^s - 1) beta / s) = 0.
    for _ in range(2):
        lift = -np.expm1(-nats)
        nats -= (nats + np.log(lift * beta / nats)) / (1.0 / lift - 1.0 / nats)
    width = np.maximum(rate * _LN2 / nats, rate / model.max_efficiency)
    widest = snr_hz / from_db(model.min_snr_db)
    fastest = rate_bps(np.inf, snr_hz, model)
    return np.where(rate <= fastest * (1.0 + 1e-12), np.minimum(width, widest), np.inf)


def snr_hz_for_rate(rate_bps_: ArrayLike, bandwidth_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the least ``P g / (N0 F)`` in Hz that carries a rate; inf above the cap.

    ``gap b (2^(R / b) - 1)``; where that is below ``min_snr_db``, power fills a part of the band
    only and ``snr_min R / log2(1 + snr_min / gap)`` is needed. Exact inverse of :func:`rate_bps` in
    power (DERIVED); arguments broadcast, bandwidths are positive.
    """
    rate = np.asarray(rate_bps_, dtype=np.float64)
    width = np.asarray(bandwidth_hz, dtype=np.float64)
    gap, densest = float(from_db(model.gap_db)), float(from_db(model.min_snr_db))
    thinnest = min(model.max_efficiency, float(np.log1p(densest / gap)) / _LN2)
    efficiency = np.minimum(rate / width, model.max_efficiency)
    dense = np.maximum(gap * np.expm1(efficiency * _LN2), densest) * width
    needed = np.where(efficiency > thinnest, dense, densest * rate / thinnest)
    return np.where(rate <= model.max_efficiency * width * (1.0 + 1e-12), needed, np.inf)
