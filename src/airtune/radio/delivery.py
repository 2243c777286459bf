"""Whether packets get through, and how often they are sent until they do."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrik

from airtune.radio.acknowledged import (
    renewed_cumulants,
    renewed_failure,
    renewed_likely_tries,
    renewed_safe_packets,
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
# What a sender does with a packet that exhausted its tries: give it up, and with it the message, or
# send it anew (NR: RLC UM and AM). Without a limit of tries there is no such packet.
LinkLayer = Literal["unacknowledged", "acknowledged"]

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
    q: ArrayLike,
    max_transmissions: int | None,
    combining: Combining = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the mean number of tries per packet, ``(1 - q^N) / (1 - q)``, N may be endless.

    Acknowledged: that of a cycle of N tries over the chance that one delivers, which without
    combining is ``1 / (1 - q)`` for every N (DERIVED, a renewal argument).
    """
    q = np.asarray(q, dtype=np.float64)
    limit, cycle = _limits(max_transmissions, combining, link_layer)
    if cycle is not None:
        return 1.0 + renewed_cumulants(q, cycle)[0]
    if combining == "chase":
        return chase_transmissions(q, limit)
    return (1.0 - residual_loss(q, limit)) / (1.0 - q)


def failure(
    tries: ArrayLike, q: ArrayLike, combining: Combining = "none", cycle: int | None = None
) -> Floats:
    """Return the chance that ``tries`` tries of a packet all fail, ``q^n`` without combining.

    ``cycle``: tries after which the memory of combining is emptied; None keeps it.
    """
    if combining == "chase":
        return chase_failure(tries, q) if cycle is None else renewed_failure(tries, q, cycle)
    return np.asarray(np.power(np.asarray(q, dtype=np.float64), np.asarray(tries)))


def residual_loss(
    q: ArrayLike,
    max_transmissions: int | None,
    combining: Combining = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the chance that a packet exhausts its N tries and is lost; 0 without a limit."""
    limit, _ = _limits(max_transmissions, combining, link_layer)
    if limit is None:
        return np.zeros_like(np.asarray(q, dtype=np.float64))
    return failure(limit, q, combining)


def expected_passes(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    combining: Combining = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the mean number of tries of the unluckiest of ``packets``, 0 for no packet.

    ``sum_n 1 - (1 - f_n)^packets`` over n = 0 .. N - 1, with f_n the failure of n tries: a pass is
    there if a packet failed in all before it (DERIVED). With it a payload of ``once`` seconds takes
    ``once E[tries] + delay (E[passes] - 1)`` in the mean.
    """
    packets = np.asarray(packets, dtype=np.float64)
    limit, cycle = _limits(max_transmissions, combining, link_layer)
    total = np.where(packets > 0, 1.0, 0.0) * np.ones_like(np.asarray(q, dtype=np.float64))
    for tries in range(1, _ENDLESS if limit is None else limit):
        fails = np.minimum(failure(tries, q, combining, cycle), _SURE)
        happens = -np.expm1(packets * np.log1p(-fails))
        total = total + happens
        if (happens < 1e-12).all():
            break
    return total


def sample_arq(
    packets: int,
    q: float,
    max_transmissions: int | None,
    rng: np.random.Generator,
    combining: Combining = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Arq:
    """Draw what sending ``packets`` packets takes when each is repeated until it gets through.

    Each pass repeats what the one before left over, a binomial draw; a message is lost only if a
    packet exhausts its tries, which in acknowledged mode begin again. Without a limit and without
    combining the repeats are negative binomial; chase combining makes them Poisson.
    """
    pending, total, tries = packets, 0, 0
    limit, cycle = _limits(max_transmissions, combining, link_layer)
    while pending and tries < (_ENDLESS if limit is None else limit):
        total += pending
        copies = 1 + (tries if cycle is None else tries % cycle)
        tries += 1
        error = float(chase_error(copies, q)) if combining == "chase" else q
        pending = int(rng.binomial(pending, error))
    return Arq(total, tries, pending > 0)


def safe_packets(
    transmissions: ArrayLike,
    q: ArrayLike,
    combining: Combining = "none",
    max_transmissions: int | None = None,
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in 999 of 1000 cases.

    The 0.1 % quantile of Binomial(transmissions, 1 - q); exact, fractions included, for q = 0. A
    limit of tries matters in acknowledged mode only: else it loses packets and spares none.
    """
    tries = np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)
    _, cycle = _limits(max_transmissions, combining, link_layer)
    if combining == "chase":
        if cycle is None:
            safe = chase_safe_packets(np.minimum(tries, _COUNTABLE), q, _UNLUCKY)
        else:
            safe = renewed_safe_packets(tries, q, cycle)
        return np.where(np.asarray(q) > 0, safe, tries)
    whole = np.minimum(np.floor(tries), _COUNTABLE).astype(np.int64)
    success = 1.0 - np.asarray(q)
    # scipy.stats has this quantile ready, but takes a third of a second to import.
    above = np.ceil(bdtrik(_UNLUCKY, whole, success))
    below = np.maximum(above - 1.0, 0.0)
    quantile = np.where(bdtr(below, whole, success) >= _UNLUCKY, below, above)
    return np.where(np.asarray(q) > 0, np.where(whole > 0, quantile, 0.0), tries)


def likely_tries(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    combining: Combining = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return tries that the unluckiest of ``packets`` exceeds once in a thousand messages.

    Smallest k with ``packets f_k <= 0.001``, at most the limit; f_k is q^k without combining
    (DERIVED).
    """
    end, cycle = _limits(max_transmissions, combining, link_layer)
    limit = _ENDLESS if end is None else end
    if cycle is not None:
        return np.minimum(renewed_likely_tries(packets, q, cycle, _UNLUCKY), limit)
    if combining == "chase":
        return np.minimum(chase_likely_tries(np.maximum(packets, 1.0), q, _UNLUCKY), limit)
    q = np.clip(q, 1e-300, 1.0 - 1e-12)
    depth = np.ceil(np.log(np.maximum(packets, 1.0) / _UNLUCKY) / -np.log(q))
    return np.clip(depth, 1.0, limit)


def _limits(
    max_transmissions: int | None, combining: Combining, link_layer: LinkLayer
) -> tuple[int | None, int | None]:
    """Return the tries after which a packet is lost, and those after which its copies are."""
    if link_layer == "unacknowledged":
        return max_transmissions, None
    return None, max_transmissions if combining == "chase" else None
