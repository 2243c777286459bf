"""What short packets lose against Shannon's law.

The normal approximation for a block of n complex symbols over a Gaussian channel (FOUND:
Polyanskiy, Poor and Verdu 2010; V is twice that of a real symbol, DERIVED):

    R = C - sqrt(V / n) Q^-1(eps) log2 e + log2(n) / (2 n)    bit per symbol
    C = log2(1 + snr),    V = 1 - (1 + snr)^-2

At 10 dB and an error of 1e-3 it lies 8.5 % below C for 200 symbols, 1.2 % for 10,000. An adapter of
megabytes fills millions of symbols in blocks of thousands, where the code and not the length is
what counts (the gap of rate.py); the approximation is for control messages, and holds from about
100 symbols on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from airtune.radio.units import Floats

_LN2 = float(np.log(2.0))


def dispersion(snr: ArrayLike) -> Floats:
    """Return ``V = 1 - (1 + snr)^-2`` of a complex symbol, in nats squared."""
    return np.asarray(-np.expm1(-2.0 * np.log1p(snr)))


def finite_efficiency(snr: ArrayLike, symbols: ArrayLike, error: ArrayLike) -> Floats:
    """Return the bit per symbol that a block carries with an error probability, at least 0.

    ``snr`` is linear, ``symbols`` counts complex ones; arguments broadcast.
    """
    symbols = np.asarray(symbols, dtype=np.float64)
    backoff = (
        -ndtri(np.asarray(error, dtype=np.float64)) * np.sqrt(dispersion(snr) / symbols) / _LN2
    )
    efficiency = np.log1p(snr) / _LN2 - backoff + np.log2(symbols) / (2.0 * symbols)
    return np.asarray(np.maximum(efficiency, 0.0))


def finite_error(snr: ArrayLike, symbols: ArrayLike, efficiency: ArrayLike) -> Floats:
    """Return the error probability of a block that carries so many bit per symbol.

    ``Q((C - R + log2(n) / (2 n)) ln2 sqrt(n / V))``: inverse of :func:`finite_efficiency`. The
    snr is positive; arguments broadcast.
    """
    symbols = np.asarray(symbols, dtype=np.float64)
    room = np.log1p(snr) - np.asarray(efficiency) * _LN2 + np.log(symbols) / (2.0 * symbols)
    return np.asarray(ndtr(-room * np.sqrt(symbols / dispersion(snr))))


def symbols_within(snr: ArrayLike, error: ArrayLike, share: ArrayLike) -> Floats:
    """Return from how many symbols on a block loses no more than ``share`` of capacity.

    ``n = V (Q^-1(eps) log2 e / (share C))^2`` without the logarithmic term, which only helps, for
    errors below one half (DERIVED).
    """
    backoff = ndtri(np.asarray(error, dtype=np.float64)) / (np.asarray(share) * np.log1p(snr))
    return np.asarray(np.ceil(dispersion(snr) * backoff**2))
