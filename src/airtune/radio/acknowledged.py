"""Acknowledged mode: a packet that failed in all its tries is sent anew, until it arrives.

Combining then starts with an empty memory, as NR's HARQ does below RLC AM. A packet's tries renew
themselves every N, so that with F_b = Pr(b tries all fail) (DERIVED)

    Pr(a N + b tries all fail) = F_N^a F_b          b < N

whatever the law is that copies add up by. Without combining there is no memory to lose: F_b = q^b,
and nothing is left of N. Arrays ``failures`` are [..., n], F_1 first, as in copies.py, of a cycle
of N tries; those that are not listed, though the cycle has them, are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.copies import copies_failure, copies_likely_tries, expanded_packets
from airtune.radio.units import Floats

_SURE = float(np.nextafter(1.0, 0.0))


def renewed_failure(tries: ArrayLike, failures: Floats, cycle: int) -> Floats:
    """Return the chance that ``tries`` tries all fail, the memory being emptied every ``cycle``."""
    tries = np.asarray(tries, dtype=np.float64)
    cycles = np.floor(tries / cycle)
    within = copies_failure(tries - cycle * cycles, failures)
    return np.asarray(copies_failure(cycle, failures) ** cycles * within)


def renewed_cumulants(failures: Floats, cycle: int) -> tuple[Floats, Floats, Floats]:
    """Return mean, variance and third cumulant of a packet's repeats in acknowledged mode.

    With ``g_m = f_(m + 1)``, the chance of more than m repeats, the factorial moments are ``sum
    g_m``, ``2 sum m g_m`` and ``3 sum m (m - 1) g_m``; with ``m = a N + b`` and ``g_m = F_N^a
    F_(b + 1)`` the sums over a are those of the geometric series (DERIVED).
    """
    tails = np.asarray(failures, dtype=np.float64)[..., :cycle]
    b = np.arange(tails.shape[-1])
    full = np.minimum(copies_failure(cycle, failures), _SURE)
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


def renewed_safe_packets(
    transmissions: ArrayLike, failures: Floats, cycle: int, unlucky: float
) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in all but ``unlucky`` cases.

    Against the exact distribution it promises up to two packets too few, and never so many that
    more than 1.05 times as many cases run over.
    """
    tries = np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)
    return expanded_packets(tries, renewed_cumulants(failures, cycle), unlucky)


def renewed_likely_tries(
    packets: ArrayLike, failures: Floats, cycle: int, unlucky: float
) -> Floats:
    """Return the smallest k >= 1 with ``packets f_k <= unlucky``."""
    packets = np.asarray(packets, dtype=np.float64)
    full = np.clip(copies_failure(cycle, failures), 1e-300, 1.0 - 1e-12)
    cycles = np.maximum(np.ceil(np.log(packets / unlucky) / -np.log(full)) - 1.0, 0.0)
    within = copies_likely_tries(packets * full**cycles, failures, unlucky)
    return np.asarray(cycles * cycle + np.minimum(within, cycle))
