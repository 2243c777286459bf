"""Whether packets get through, and how often they are sent until they do."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrik

from airtune.radio.copies import (
    copies_error,
    copies_failure,
    copies_likely_tries,
    copies_safe_packets,
    copies_transmissions,
)
from airtune.radio.harq import (
    chase_error,
    chase_failure,
    chase_likely_tries,
    chase_safe_packets,
    chase_transmissions,
)
from airtune.radio.units import Floats, from_db

# What a receiver does with copies that failed: forget them, or add them up (harq.py).
Combining = Literal["none", "chase"]
# And how it is counted: copies that add up at an SNR that is known are listed (copies.py).
Law = Literal["none", "chase", "copies"]

_WATERFALL_SNR = float(from_db(0.023))

# An unlimited sender gives up here: such a link is down, and the simulation must end.
_ENDLESS = 10_000
_UNLUCKY = 1e-3
_COUNTABLE = 2.0**53
_SURE = float(np.nextafter(1.0, 0.0))


class Arq(NamedTuple):
    """One message's fate: packets sent in all, tries of its unluckiest packet, lost or not."""

    transmissions: int
    tries: int
    lost: bool


def rayleigh_outage(efficiency: ArrayLike, mean_snr: ArrayLike) -> Floats:
    """Return ``1 - exp(-(2^R - 1) / mean_snr)`` for R bit/s/Hz over Rayleigh fading."""
    return np.asarray(-np.expm1(-np.expm1(np.asarray(efficiency) * np.log(2.0)) / mean_snr))


def packet_error_rate(setting: float | str, mean_snr: ArrayLike) -> Floats:
    """Return each link's packet error probability q.

    A number is q itself; ``"waterfall"`` is ``q = 1 - exp(-v / mean_snr)``, v = 0.023 dB, with the
    SNR averaged over the fading. Source: the average-power form of Chen et al.
    """
    if setting == "waterfall":
        return np.asarray(-np.expm1(-_WATERFALL_SNR / np.asarray(mean_snr, dtype=np.float64)))
    return np.full(np.shape(mean_snr), float(setting))


def expected_transmissions(
    q: ArrayLike, max_transmissions: int | None, law: Law = "none"
) -> Floats:
    """Return the mean number of tries per packet, ``(1 - q^N) / (1 - q)``, N may be endless."""
    q = np.asarray(q, dtype=np.float64)
    if law == "copies":
        return copies_transmissions(q, max_transmissions)
    if law == "chase":
        return chase_transmissions(q, max_transmissions)
    return (1.0 - residual_loss(q, max_transmissions)) / (1.0 - q)


def failure(tries: ArrayLike, q: ArrayLike, law: Law = "none") -> Floats:
    """Return the chance that ``tries`` tries of a packet all fail, ``q^n`` without combining.

    Under the law ``copies`` here and below q is [..., copies], the failures of 1, 2 ... copies.
    """
    if law == "copies":
        return copies_failure(tries, q)
    if law == "chase":
        return chase_failure(tries, q)
    return np.asarray(np.power(np.asarray(q, dtype=np.float64), np.asarray(tries)))


def residual_loss(q: ArrayLike, max_transmissions: int | None, law: Law = "none") -> Floats:
    """Return the chance that a packet exhausts its N tries; 0 without a limit."""
    if max_transmissions is None:
        return np.zeros(np.shape(q)[:-1] if law == "copies" else np.shape(q))
    return failure(max_transmissions, q, law)


def expected_passes(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
) -> Floats:
    """Return the mean number of tries of the unluckiest of ``packets``, 0 for no packet.

    ``sum_n 1 - (1 - f_n)^packets`` over n = 0 .. N - 1, with f_n the failure of n tries: a pass is
    there if a packet failed in all before it (DERIVED). With it a payload of ``once`` seconds takes
    ``once E[tries] + delay (E[passes] - 1)`` in the mean.
    """
    packets = np.asarray(packets, dtype=np.float64)
    limit = _ENDLESS if max_transmissions is None else max_transmissions
    total = np.where(packets > 0, 1.0, 0.0) * failure(0, q, law)
    for tries in range(1, limit):
        happens = -np.expm1(packets * np.log1p(-np.minimum(failure(tries, q, law), _SURE)))
        total = total + happens
        if (happens < 1e-12).all():
            break
    return total


def sample_arq(
    packets: int,
    q: float | Floats,
    max_transmissions: int | None,
    rng: np.random.Generator,
    law: Law = "none",
) -> Arq:
    """Draw what sending ``packets`` packets takes when each is repeated until it gets through.

    Each pass repeats what the one before left over, a binomial draw; a message is lost only if a
    packet exhausts its tries. Without a limit and without combining the repeats are negative
    binomial; chase combining makes them Poisson. Under ``copies`` q is [copies].
    """
    pending, total, tries = packets, 0, 0
    limit = _ENDLESS if max_transmissions is None else max_transmissions
    while pending and tries < limit:
        total += pending
        tries += 1
        pending = int(rng.binomial(pending, _error(tries, q, law)))
    return Arq(total, tries, pending > 0)


def safe_packets(transmissions: ArrayLike, q: ArrayLike, law: Law = "none") -> Floats:
    """Return how many packets ``transmissions`` tries deliver in 999 of 1000 cases.

    The 0.1 % quantile of Binomial(transmissions, 1 - q); exact, fractions included, for q = 0.
    """
    tries = np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)
    if law == "copies":
        q = np.asarray(q, dtype=np.float64)
        first, alone = q[..., 0], safe_packets(tries, q[..., 0])
        together = np.where(first > 0, copies_safe_packets(tries, q, _UNLUCKY), tries)
        # Where no later try fails more often than the first, what is safe alone is so together.
        eased = (q[..., 1:] <= q[..., :-1] * first[..., None]).all(-1)
        return np.where(eased, np.maximum(alone, together), together)
    if law == "chase":
        safe = chase_safe_packets(np.minimum(tries, _COUNTABLE), q, _UNLUCKY)
        return np.where(np.asarray(q) > 0, safe, tries)
    whole = np.minimum(np.floor(tries), _COUNTABLE).astype(np.int64)
    success = 1.0 - np.minimum(q, _SURE)  # or the quantile of no chance at all is no number
    # scipy.stats has this quantile ready, but takes a third of a second to import.
    above = np.ceil(bdtrik(_UNLUCKY, whole, success))
    below = np.maximum(above - 1.0, 0.0)
    quantile = np.where(bdtr(below, whole, success) >= _UNLUCKY, below, above)
    return np.where(np.asarray(q) > 0, np.where(whole > 0, quantile, 0.0), tries)


def likely_tries(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
) -> Floats:
    """Return tries that the unluckiest of ``packets`` exceeds once in a thousand messages.

    Smallest k with ``packets f_k <= 0.001``, at most the limit; f_k is q^k without combining
    (DERIVED).
    """
    limit = _ENDLESS if max_transmissions is None else max_transmissions
    if law == "copies":
        return np.minimum(copies_likely_tries(packets, q, _UNLUCKY), limit)
    if law == "chase":
        return np.minimum(chase_likely_tries(np.maximum(packets, 1.0), q, _UNLUCKY), limit)
    q = np.clip(q, 1e-300, 1.0 - 1e-12)
    depth = np.ceil(np.log(np.maximum(packets, 1.0) / _UNLUCKY) / -np.log(q))
    return np.clip(depth, 1.0, limit)


def _error(attempt: int, q: float | Floats, law: Law) -> float:
    """Return the chance that try number ``attempt`` fails if all before it did."""
    if law == "none":
        return float(q)
    return float(copies_error(attempt, q) if law == "copies" else chase_error(attempt, q))
