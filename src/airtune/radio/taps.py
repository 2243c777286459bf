"""Fading over frequency: a tapped delay line with an exponential power delay profile.

Paths arrive later and weaker, ``p(d) = exp(-d / tau) / tau`` with ``tau`` the rms delay spread, and
each of them fades on its own. Over frequency the coefficients then correlate as the profile's
Fourier transform (FOUND in any text on mobile radio):

    E[ H(f) conj H(f - df) ] = 1 / (1 + j 2 pi df tau)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from airtune.radio.fading import Coefficients
from airtune.radio.units import Floats

_SPACINGS_PER_BAND = 3.0  # of the delay that a receiver of the whole band tells apart, 1 / B
_SPACINGS_PER_SPREAD = 10.0
_LENGTH = 8.0  # delay spreads; what comes later has 0.03 % of the power


class Taps(NamedTuple):
    """Delays in seconds and mean powers, which sum to one; both ``[taps]``."""

    delays_s: Floats
    powers: Floats


def exponential_taps(delay_spread_s: float, bandwidth_hz: float) -> Taps:
    """Return taps of the exponential profile that stand for it over a bandwidth.

    Each has the profile's power from half a spacing before to half a spacing behind it, which is an
    error of second order in the spacing: correlations over the band are right within 0.01.
    """
    spacing = min(1.0 / (_SPACINGS_PER_BAND * bandwidth_hz), delay_spread_s / _SPACINGS_PER_SPREAD)
    count = math.ceil(_LENGTH * delay_spread_s / spacing)
    delays = np.asarray((np.arange(count, dtype=np.float64) + 0.5) * spacing)
    powers = np.exp(-delays / delay_spread_s)
    return Taps(delays, np.asarray(powers / powers.sum()))


def block_responses(taps: Taps, blocks: int, block_hz: float) -> Coefficients:
    """Return ``sqrt(p_l) exp(-j 2 pi f_b d_l)``, [taps, blocks], of blocks side by side.

    ``scatter @ responses`` are coefficients of unit mean power, for CN(0, 1) ``scatter``.
    """
    phase = -2.0 * np.pi * np.outer(taps.delays_s, np.arange(blocks) * block_hz)
    return np.asarray(np.sqrt(taps.powers)[:, None] * np.exp(1j * phase))
