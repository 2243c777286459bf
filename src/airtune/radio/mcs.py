"""Rates in steps: the modulation and coding schemes of 5G NR.

A scheme of efficiency e_m bit/s/Hz is decoded from an SNR of th_m on, so a link of ``snr_hz`` can
use it on at most ``w_m = snr_hz / th_m`` Hz. A client picks the scheme and the part of its share
that together carry most, so with b Hz it sends

    R(b) = max_m e_m min(b, w_m)

which rises along b e_m, rests at w_m e_m, and rises again where the next scheme carries more over
the wider share (DERIVED; filling the whole share at all costs would lose rate at every step).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.units import Bools, Floats, Ints, from_db

# Index, bits per symbol, 1024 times the code rate (FOUND: TS 38.214 table 5.1.3.1-1) and the SNR
# in dB from which a transport block on the uplink fails in at most 10 % of cases (FOUND: Sionna
# 2.2, PUSCH table 1, 5 resource blocks, on a grid of 0.25 dB). Indices that are left out have no
# threshold there.
_SCHEMES = np.array(
    [
        (3, 2, 251, -2.75),
        (5, 2, 379, -0.75),
        (7, 2, 526, 1.0),
        (9, 2, 679, 2.75),
        (10, 4, 340, 3.25),
        (12, 4, 434, 4.75),
        (14, 4, 553, 6.5),
        (16, 4, 658, 8.25),
        (18, 6, 466, 10.25),
        (20, 6, 567, 12.5),
        (22, 6, 666, 14.5),
        (24, 6, 772, 16.75),
        (26, 6, 873, 18.5),
        (27, 6, 910, 19.0),
    ]
)[::-1]
# Best scheme first: where several carry the same, the first needs the least bandwidth.
INDEX = _SCHEMES[:, 0].astype(np.int64)
EFFICIENCY: Floats = _SCHEMES[:, 1] * _SCHEMES[:, 2] / 1024.0
THRESHOLD_SNR: Floats = from_db(_SCHEMES[:, 3])
LOWEST_SNR = float(THRESHOLD_SNR[-1])


def mcs_efficiency(snr: ArrayLike) -> Floats:
    """Return the bit/s/Hz of the best scheme that a linear SNR allows, 0 below all of them."""
    allowed = np.asarray(snr, dtype=np.float64)[..., None] >= THRESHOLD_SNR
    return np.asarray(np.where(allowed, EFFICIENCY, 0.0).max(-1))


def mcs_rate_bps(bandwidth_hz: ArrayLike, snr_hz: ArrayLike) -> Floats:
    """Return ``max_m e_m min(b, snr_hz / th_m)`` in bit/s; arguments broadcast."""
    return np.asarray((_widths(bandwidth_hz, snr_hz) * EFFICIENCY).max(-1))


def mcs_occupied_hz(bandwidth_hz: ArrayLike, snr_hz: ArrayLike) -> Floats:
    """Return the part of the bandwidth in Hz on which most is carried, the least if several."""
    widths = _widths(bandwidth_hz, snr_hz)
    best = (widths * EFFICIENCY).argmax(-1)
    return np.asarray(np.take_along_axis(widths, best[..., None], axis=-1)[..., 0])


def mcs_scheme(bandwidth_hz: ArrayLike, snr_hz: ArrayLike) -> Ints:
    """Return the place in ``INDEX`` of the scheme that carries most, on mcs_occupied_hz of it."""
    return np.asarray((_widths(bandwidth_hz, snr_hz) * EFFICIENCY).argmax(-1), dtype=np.int64)


def mcs_bandwidth_hz(rate_bps: ArrayLike, snr_hz: ArrayLike) -> Floats:
    """Return the least bandwidth in Hz that carries a rate; inf where no bandwidth does.

    ``min { R / e_m : R <= e_m snr_hz / th_m }``: a scheme serves all rates up to that of its
    widest share. Exact inverse of :func:`mcs_rate_bps`; arguments broadcast.
    """
    rate = np.asarray(rate_bps, dtype=np.float64)[..., None]
    widest = np.asarray(snr_hz, dtype=np.float64)[..., None] / THRESHOLD_SNR
    # The slack forgives a rate that was itself computed from a widest share.
    serves = rate <= widest * EFFICIENCY * (1.0 + 1e-12)
    return np.asarray(np.where(serves, np.minimum(rate / EFFICIENCY, widest), np.inf).min(-1))


def mcs_snr_hz(bandwidth_hz: ArrayLike, rate_bps: ArrayLike) -> Floats:
    """Return the least ``snr_hz`` that carries a rate over a bandwidth; inf where none does.

    ``min { R th_m / e_m : R <= e_m b }``. Arguments broadcast.
    """
    rate = np.asarray(rate_bps, dtype=np.float64)[..., None]
    width = np.asarray(bandwidth_hz, dtype=np.float64)[..., None]
    serves = rate <= width * EFFICIENCY * (1.0 + 1e-12)
    return np.asarray(np.where(serves, rate * THRESHOLD_SNR / EFFICIENCY, np.inf).min(-1))


def mcs_slope(bandwidth_hz: ArrayLike, snr_hz: ArrayLike) -> Floats:
    """Return the slope, in bit/s per Hz, of the least concave curve above :func:`mcs_rate_bps`.

    The steps themselves have slopes that fall to zero and rise again, by which nobody can divide
    spectrum. The concave curve is what a link carries that divides its time between two schemes;
    its slope never increases with bandwidth. DERIVED.
    """
    width, snr_hz = np.broadcast_arrays(
        np.asarray(bandwidth_hz, dtype=np.float64), np.asarray(snr_hz, dtype=np.float64)
    )
    with np.errstate(divide="ignore", over="ignore"):
        spread = width / np.where(snr_hz > 0.0, snr_hz, 1.0)
    segment = np.searchsorted(_CORNERS, np.where(snr_hz > 0.0, spread, np.inf), side="right")
    return np.asarray(_SLOPES[segment])


def mcs_in_outage(snr_hz: ArrayLike, resource_block_hz: float) -> Bools:
    """Return which links fall below all thresholds even on a single resource block."""
    return np.asarray(np.asarray(snr_hz) < LOWEST_SNR * resource_block_hz, dtype=np.bool_)


def _widths(bandwidth_hz: ArrayLike, snr_hz: ArrayLike) -> Floats:
    """Return how much of its share a link can use with each scheme, [..., schemes]."""
    width = np.asarray(bandwidth_hz, dtype=np.float64)[..., None]
    return np.minimum(width, np.asarray(snr_hz, dtype=np.float64)[..., None] / THRESHOLD_SNR)


def _concave() -> tuple[Floats, Floats]:
    """Return corners of the concave curve, in Hz per Hz of ``snr_hz``, and slopes between them."""
    width, rate = 1.0 / THRESHOLD_SNR, EFFICIENCY / THRESHOLD_SNR
    corners, slopes, at = [], [], (0.0, 0.0)
    while at[0] < width[-1]:
        beyond = width > at[0]
        rise = np.where(beyond, (rate - at[1]) / np.where(beyond, width - at[0], 1.0), -np.inf)
        best = int(np.flatnonzero(rise >= rise.max() * (1.0 - 1e-12))[-1])
        corners.append(width[best])
        slopes.append(rise[best])
        at = (width[best], rate[best])
    return np.array(corners), np.array([*slopes, 0.0])


_CORNERS, _SLOPES = _concave()
