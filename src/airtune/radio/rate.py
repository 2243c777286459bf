"""Bandwidth to bits per second and back.

``snr_hz`` is ``P g / (N0 F)`` in Hz: the signal-to-noise ratio times the bandwidth, which is
what a link has before anybody decides how much spectrum its power is spread over.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator
from scipy.special import lambertw

from airtune.config import Config
from airtune.radio.mcs import (
    LOWEST_SNR,
    mcs_bandwidth_hz,
    mcs_in_outage,
    mcs_occupied_hz,
    mcs_rate_bps,
    mcs_slope,
    mcs_snr_hz,
)
from airtune.radio.units import Bools, Floats, from_db

_LN2 = float(np.log(2.0))


class RateModel(Config):
    """How far a practical link stays below Shannon; Shannon itself is gap 0 and a high cap.

    With ``law: mcs`` the table in ``mcs.py`` takes the place of gap, cap and least SNR.
    """

    law: Literal["shannon", "mcs"] = Field(
        "shannon",
        description="Shannon's law with a gap and a cap, or the steps of NR's modulation and "
        "coding schemes, which are chosen for packet errors of 10 %",
    )
    gap_db: float = Field(2.0, ge=0, le=20, description="SNR gap of real coding, 2-3 dB for NR")
    max_efficiency: float = Field(
        5.55, gt=0, le=100, description="bit/s/Hz of the best modulation and coding scheme"
    )
    min_snr_db: float = Field(
        -5.0, ge=-30, le=30, description="below this SNR nothing is decoded, so power is kept dense"
    )
    resource_block_hz: float = Field(180e3, ge=1e3, description="smallest piece of spectrum")

    @model_validator(mode="after")
    def _one_law(self) -> RateModel:
        if self.law == "mcs":
            for name in ("gap_db", "max_efficiency", "min_snr_db"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} belongs to law shannon; with law mcs the table of schemes says "
                        "it, so leave it out"
                    )
        return self


def occupied_hz(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return ``min(b, snr_hz / snr_min)``: power is never spread thinner than ``min_snr_db``.

    Law mcs: the part of the share on which one scheme carries most.
    """
    if model.law == "mcs":
        return mcs_occupied_hz(bandwidth_hz, snr_hz)
    return np.minimum(bandwidth_hz, np.asarray(snr_hz) / from_db(model.min_snr_db))


def rate_bps(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the rate of each link in bit/s; arguments broadcast.

    ``b' min(cap, log2(1 + snr_hz / (gap b')))`` with ``b' = min(b, snr_hz / snr_min)``.
    Law mcs: ``max_m e_m min(b, snr_hz / th_m)`` over schemes of efficiency e_m and threshold th_m.
    """
    if model.law == "mcs":
        return mcs_rate_bps(bandwidth_hz, snr_hz)
    snr_hz = np.asarray(snr_hz, dtype=np.float64)
    width = occupied_hz(bandwidth_hz, snr_hz, model)
    divisor = np.where((width > 0) & np.isfinite(width), width, 1.0)
    with np.errstate(over="ignore"):
        snr = snr_hz / (from_db(model.gap_db) * divisor)
    return np.asarray(width * np.minimum(model.max_efficiency, np.log1p(snr) / _LN2))


def rate_slope(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the derivative of :func:`rate_bps` by bandwidth, in bit/s per Hz.

    ``log2(1 + x) - x / ((1 + x) ln 2)`` with ``x = snr_hz / (gap b)``; the cap where it binds, and
    zero beyond the bandwidth that power can fill. It never increases with bandwidth. Law mcs: the
    slope of the least concave curve above the steps, which are 12 % below it at most.
    """
    if model.law == "mcs":
        return mcs_slope(bandwidth_hz, snr_hz)
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
    """Return which links fall below ``min_snr_db`` even on a single resource block.

    Law mcs: below the threshold of the lowest scheme.
    """
    if model.law == "mcs":
        return mcs_in_outage(snr_hz, model.resource_block_hz)
    return np.asarray(np.asarray(snr_hz) < outage_snr_hz(model), dtype=np.bool_)


def outage_snr_hz(model: RateModel) -> float:
    """Return the least ``snr_hz`` that is no outage."""
    if model.law == "mcs":
        return LOWEST_SNR * model.resource_block_hz
    return float(from_db(model.min_snr_db) * model.resource_block_hz)


def bandwidth_for_rate_hz(rate_bps_: ArrayLike, snr_hz: ArrayLike, model: RateModel) -> Floats:
    """Return the least bandwidth in Hz that carries a rate; inf where no bandwidth does.

    With ``beta = gap R ln2 / snr_hz`` the spectral efficiency in nats is
    ``s = -W_{-1}(-beta e^-beta) - beta`` and ``b = max(R ln2 / s, R / cap)``.
    Law mcs: the narrowest share of all schemes that reach the rate.
    Exact inverse of :func:`rate_bps`; arguments broadcast.
    """
    if model.law == "mcs":
        return mcs_bandwidth_hz(rate_bps_, snr_hz)
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


def snr_for_rate_hz(bandwidth_hz: ArrayLike, rate_bps_: ArrayLike, model: RateModel) -> Floats:
    """Return the least ``snr_hz`` that carries a rate over a bandwidth; inf above the cap.

    ``gap b (2^(R/b) - 1)``; a rate below that of ``min_snr_db`` occupies a part of the bandwidth,
    and needs ``R snr_min / log2(1 + snr_min / gap)``. Inverse of :func:`rate_bps`. Law mcs: the
    least of all schemes that reach the rate over this bandwidth.
    """
    if model.law == "mcs":
        return mcs_snr_hz(bandwidth_hz, rate_bps_)
    width, rate = np.broadcast_arrays(
        np.asarray(bandwidth_hz, dtype=np.float64), np.asarray(rate_bps_, dtype=np.float64)
    )
    cap, gap = model.max_efficiency, from_db(model.gap_db)
    densest = from_db(model.min_snr_db)
    least = np.minimum(cap, np.log1p(densest / gap) / _LN2)
    efficiency = rate / width
    spread = gap * width * np.expm1(np.minimum(efficiency, cap) * _LN2)
    filled = np.maximum(spread, densest * width)
    snr_hz = np.where(efficiency > least, filled, rate * densest / least)
    return np.where(efficiency <= cap * (1.0 + 1e-12), snr_hz, np.inf)
