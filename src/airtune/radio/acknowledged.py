"""Acknowledged mode: a packet that failed in all its tries is sent anew, until it arrives.

Chase combining (harq.py) then starts with an empty memory, as NR's HARQ does below RLC AM. A
packet's tries renew themselves every N, so that with F_b = Pr(b tries all fail) (DERIVED)

    Pr(a N + b tries all fail) = F_N^a F_b          b < N

Without combining there is no memory to lose: F_b = q^b, and nothing is left of N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.harq import chase_failure, chase_likely_tries
from airtune.radio.units import Floats

_COUNTED = 200  # tries of a cycle that are looked through: later ones have no probability left
_ONE_IN_1000 = 3.0902323061678132  # deviations that a normal variable exceeds once in a thousand
_SURE = float(np.nextafter(1.0, 0.0))


def renewed_failure(tries: ArrayLike, q: ArrayLike, cycle: int) -> Floats:
    """Return the chance that ``tries`` tries all fail, the memory being emptied every ``cycle``."""
    tries = np.asarray(tries, dtype=np.float64)
    cycles = np.floor(tries / cycle)
    return chase_failure(cycle, q) ** cycles * chase_failure(tries - cycle * cycles, q)


def renewed_cumulants(q: ArrayLike, cycle: int) -> tuple[Floats, Floats, Floats]:
    """Return mean, variance and third cumulant of a packet's repeats in acknowledged mode.

    With ``g_m = f_(m + 1)``, the chance of more than m repeats, the factorial moments are ``sum
    g_m``, ``2 sum m g_m`` and ``3 sum m (m - 1) g_m``; with ``m = a N + b`` and ``g_m = F_N^a
    F_(b + 1)`` the sums over a are those of the geometric series (DERIVED).
    """
    b = np.arange(min(cycle, _COUNTED))
    tails = chase_failure(b + 1, np.asarray(q, dtype=np.float64)[..., None])
    full = np.minimum(chase_failure(cycle, q), _SURE)
    zeroth, first, second = tails.sum(-1), (b * tails).sum(-1), (b**2 * tails).sum(-1)
    passed = 1.0 - full
    again = cycle * full / passed
    squares = cycle**2 * full * (1.0 + full) / passed**2
    mean = zeroth / passed
    weighed = (again * zeroth + first) / passed
    weighed_twice = (squares * zeroth + 2.0 * again * first + second) / passed
    square = 2.0 * weighed + mean
    cube = 3.0 * weighed_twice + 3.0 * weighed + mean
    return mean, square - mean**2, cube - 3.0 * mean * square + 2.0 * mean**3


def renewed_safe_packets(transmissions: ArrayLike, q: ArrayLike, cycle: int) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in 999 of 1000 cases.

    Cornish and Fisher's expansion of the tries of p packets to the third cumulant, with z the
    normal quantile and m, v, k a packet's mean, variance and third cumulant (DERIVED):

        p m + z sqrt(p v) + (z^2 - 1) k / (6 v) <= transmissions

    Against the exact distribution it promises up to two packets too few, and never so many that
    more than 1.05 cases in 1000 run over.
    """
    tries = np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)
    repeats, variance, third = renewed_cumulants(q, cycle)
    mean = 1.0 + repeats
    skew = (_ONE_IN_1000**2 - 1.0) / 6.0 * third / np.maximum(variance, 1e-300)
    half = 0.5 * _ONE_IN_1000 * np.sqrt(np.maximum(variance, 0.0))
    room = np.maximum(np.floor(tries) - skew, 0.0)
    return np.floor(((np.sqrt(half**2 + mean * room) - half) / mean) ** 2)


def renewed_likely_tries(packets: ArrayLike, q: ArrayLike, cycle: int, unlucky: float) -> Floats:
    """Return the smallest k >= 1 with ``packets f_k <= unlucky``."""
    packets = np.maximum(np.asarray(packets, dtype=np.float64), 1.0)
    full = np.clip(chase_failure(cycle, q), 1e-300, 1.0 - 1e-12)
    cycles = np.maximum(np.ceil(np.log(packets / unlucky) / -np.log(full)) - 1.0, 0.0)
    within = chase_likely_tries(packets * full**cycles, q, unlucky)
    return np.asarray(cycles * cycle + np.minimum(within, cycle))
