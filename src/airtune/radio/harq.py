"""Chase combining: all copies of a packet that were received add up, until they are enough.

A try of error probability q is an outage over Rayleigh fading: its SNR stays below x times the
mean, ``q = 1 - exp(-x)``. That is what the waterfall of packet_errors.py is, with x = v / mean_snr,
and how a plain number q is read here. Copies that fade apart from each other add up to n times the
SNR in the mean, and to a Gamma variable with n degrees, so that (DERIVED)

    Pr(n tries all fail) = P(n, x) = Pr(Poisson(x) >= n)        P: regularised incomplete gamma

and a packet's repeats are Poisson(x). For small q this is x^n / n!, the product of the error rates
of tries with 1, 2 ... n times the SNR. Ours: a number q is taken for such an outage. Where the SNR
is known and errors are noise alone, a second copy helps still more: copies.py has that law, which
takes the curves of bler.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaincc

from airtune.radio.units import Floats

_COUNTED = 200  # tries that are ever listed
_SURE = float(np.nextafter(1.0, 0.0))


def mean_repeats(q: ArrayLike) -> Floats:
    """Return ``x = -ln(1 - q)``, the mean number of repeats of a packet without a limit.

    A q that rounds to one says no more than x = 36.7.
    """
    return np.asarray(-np.log1p(-np.minimum(q, _SURE)))


def chase_failure(tries: ArrayLike, q: ArrayLike) -> Floats:
    """Return ``P(tries, x)``, the chance that so many tries are not enough; 1 for none."""
    tries = np.asarray(tries, dtype=np.float64)
    failure = gammainc(np.maximum(tries, 1.0), mean_repeats(q))
    return np.asarray(np.where(tries > 0.0, failure, 1.0))


def chase_failures(q: ArrayLike, most: int) -> Floats:
    """Return ``P(n, x)`` of n = 1, 2 ... ``most`` tries, [..., n]; 200 at most.

    No packet comes to more: x stays below 37, and the tail ends long before.
    """
    tries = np.arange(1, min(most, _COUNTED) + 1)
    return chase_failure(tries, np.asarray(q, dtype=np.float64)[..., None])


def chase_transmissions(q: ArrayLike, max_transmissions: int | None) -> Floats:
    """Return the mean number of tries per packet.

    ``1 + x`` without a limit. With at most N = m + 1 of them ``1 + E[min(K, m)]`` of a Poisson K,
    which is ``1 + x Pr(K <= m - 2) + m Pr(K >= m)``.
    """
    x = mean_repeats(q)
    if max_transmissions is None:
        return 1.0 + x
    m = max_transmissions - 1
    below = gammaincc(m - 1, x) if m > 1 else np.zeros_like(x)
    return np.asarray(1.0 + x * below + m * chase_failure(m, q))


def chase_safe_packets(transmissions: ArrayLike, q: ArrayLike, unlucky: float) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in all but ``unlucky`` cases.

    The largest p with ``Pr(Poisson(p x) <= transmissions - p) >= 1 - unlucky``, by bisection.
    """
    tries, x = np.broadcast_arrays(
        np.floor(np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)), mean_repeats(q)
    )
    low, high = np.zeros_like(tries), tries + 1.0  # low fits, high does not
    while (high - low > 1.0).any():
        middle = np.floor(0.5 * (low + high))
        fits = gammaincc(np.maximum(tries - middle, 0.0) + 1.0, middle * x) >= 1.0 - unlucky
        apart = high - low > 1.0
        low, high = np.where(apart & fits, middle, low), np.where(apart & ~fits, middle, high)
    return low
