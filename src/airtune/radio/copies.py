"""Chase combining where the SNR is known: n copies of a packet have n times the SNR.

A scheme fails at an SNR with probability ``BLER(snr)``. Copies of a packet that were received under
the same gain add up, so that (DERIVED)

    f_n = Pr(n tries all fail) = BLER(n snr)

as copies that fail together would not have done with fewer. In harq.py each copy fades on its own
and one number says how the first does; here all is known, and a second copy, worth 3 dB, nearly
always ends it. Arrays ``failures`` are [..., copies], f_1 first; tries beyond those listed succeed.
What is counted here holds for any such list, wherever it comes from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from airtune.radio.arq import arq_safe_packets
from airtune.radio.units import Floats


def copies_failure(tries: ArrayLike, failures: ArrayLike) -> Floats:
    """Return ``f_n`` of n = ``tries``, 1 for none; ``tries`` broadcasts with links [...]."""
    failures = np.asarray(failures, dtype=np.float64)
    ends = (*failures.shape[:-1], 1)
    listed = np.concatenate([np.ones(ends), failures, np.zeros(ends)], axis=-1)
    place = np.clip(np.asarray(tries, dtype=np.int64), 0, listed.shape[-1] - 1)
    place = np.broadcast_to(place, np.broadcast_shapes(place.shape, ends[:-1]))
    listed = np.broadcast_to(listed, place.shape + listed.shape[-1:])
    return np.asarray(np.take_along_axis(listed, place[..., None], axis=-1)[..., 0])


def copies_transmissions(failures: ArrayLike, max_transmissions: int | None) -> Floats:
    """Return the mean number of tries per packet, ``1 + f_1 + ... + f_(N-1)``."""
    failures = np.asarray(failures, dtype=np.float64)
    again = None if max_transmissions is None else max_transmissions - 1
    return np.asarray(1.0 + failures[..., :again].sum(-1))


def copies_likely_tries(packets: ArrayLike, failures: ArrayLike, unlucky: float) -> Floats:
    """Return the smallest k >= 1 with ``packets f_k <= unlucky``."""
    packets = np.asarray(packets, dtype=np.float64)[..., None]
    return np.asarray(1.0 + (packets * np.asarray(failures) > unlucky).sum(-1))


def copies_safe_packets(transmissions: ArrayLike, failures: ArrayLike, unlucky: float) -> Floats:
    """Return a count of packets that ``transmissions`` tries deliver in all but ``unlucky`` cases.

    Repeats of p packets are a sum of p independent numbers whose moments follow from f_n, and
    :func:`expanded_packets` has their quantile; a try is kept back for what it may be wrong by. Or,
    where that is more, as few packets as nearly never need more than k tries each. DERIVED; never
    more than the exact quantile by more than rounding, below it by a few packets.
    """
    failures = np.asarray(failures, dtype=np.float64)
    tries = np.floor(np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0))
    n = np.arange(1, failures.shape[-1] + 1)
    mean = failures.sum(-1)
    second = ((2 * n - 1) * failures).sum(-1)
    third = ((3 * n**2 - 3 * n + 1) * failures).sum(-1)
    cumulants = mean, second - mean**2, third - 3.0 * mean * second + 2.0 * mean**3
    depth = np.arange(1, failures.shape[-1] + 2)
    safe = np.concatenate([failures, np.zeros((*failures.shape[:-1], 1))], axis=-1)
    with np.errstate(divide="ignore"):
        rarely = np.minimum(np.floor(tries[..., None] / depth), np.floor(unlucky / safe))
    return np.maximum(expanded_packets(tries - 1.0, cumulants, unlucky), rarely.max(-1))


def copies_safe_alone(transmissions: ArrayLike, failures: ArrayLike, unlucky: float) -> Floats:
    """Return what is safe if copies are forgotten, where adding them up does no harm; else 0.

    There no later try fails more often than the first, ``f_n <= f_(n-1) f_1``.
    """
    failures = np.asarray(failures, dtype=np.float64)
    first = failures[..., 0]
    eased = (failures[..., 1:] <= failures[..., :-1] * first[..., None]).all(-1)
    return np.where(eased, arq_safe_packets(transmissions, first, unlucky), 0.0)


def expanded_packets(
    transmissions: Floats, cumulants: tuple[Floats, Floats, Floats], unlucky: float
) -> Floats:
    """Return how many packets so many tries deliver by Cornish and Fisher's expansion.

    The largest p with ``p + p m + z sqrt(p v) + (z^2 - 1) k / (6 v) <= transmissions``, z the
    normal quantile and m, v, k the mean, variance and third cumulant of a packet's repeats, which
    are independent of each other (DERIVED).
    """
    repeats, variance, third = cumulants
    z, mean = float(-ndtri(unlucky)), 1.0 + repeats
    variance = np.maximum(variance, 0.0)
    skew = (z**2 - 1.0) / 6.0 * third / np.where(variance > 0.0, variance, 1.0)
    half = 0.5 * z * np.sqrt(variance)
    room = np.maximum(np.floor(transmissions) - np.maximum(skew, 0.0), 0.0)
    return np.floor(((np.sqrt(half**2 + mean * room) - half) / mean) ** 2)
