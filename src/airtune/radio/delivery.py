"""Whether packets get through, and how often they are sent until they do.

How packets fail is said the same way everywhere here: ``q`` and the ``law`` that it goes by, the
limit of tries ``max_transmissions``, and what the ``link_layer`` does at that limit. Under the laws
``none`` and ``chase`` q is the error rate of a first try, [...]; under ``copies`` it is [..., n],
the failures of 1, 2 ... copies together.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.acknowledged import (
    renewed_cumulants,
    renewed_failure,
    renewed_likely_tries,
    renewed_safe_packets,
)
from airtune.radio.arq import (
    arq_failure,
    arq_likely_tries,
    arq_safe_packets,
    arq_transmissions,
)
from airtune.radio.copies import (
    copies_failure,
    copies_likely_tries,
    copies_safe_alone,
    copies_safe_packets,
    copies_transmissions,
)
from airtune.radio.harq import (
    chase_failure,
    chase_failures,
    chase_safe_packets,
    chase_transmissions,
)
from airtune.radio.units import Floats

# What a receiver does with copies that failed: forget them, or add them up (harq.py).
Combining = Literal["none", "chase"]
# And how it is counted: copies that add up at an SNR that is known are listed (copies.py).
Law = Literal["none", "chase", "copies"]
# What a sender does with a packet that exhausted its tries: give it up, and with it the message, or
# send it anew (NR: RLC UM and AM). Without a limit of tries there is no such packet.
LinkLayer = Literal["unacknowledged", "acknowledged"]

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


def expected_transmissions(
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the mean number of tries per packet; there may be no end of them.

    Acknowledged: that of a cycle of N tries over the chance that one delivers, which without
    combining is ``1 / (1 - q)`` for every N (DERIVED, a renewal argument).
    """
    limit, cycle = _limits(max_transmissions, law, link_layer)
    if cycle is not None:
        return 1.0 + renewed_cumulants(_listed(q, law, cycle), cycle)[0]
    if law == "copies":
        return copies_transmissions(q, limit)
    if law == "chase":
        return chase_transmissions(q, limit)
    return arq_transmissions(q, limit)


def failure(tries: ArrayLike, q: ArrayLike, law: Law = "none", cycle: int | None = None) -> Floats:
    """Return the chance that ``tries`` tries of a packet all fail, ``q^n`` without combining.

    ``cycle``: tries after which the memory of combining is emptied; None keeps it.
    """
    if cycle is not None and law != "none":
        return renewed_failure(tries, _listed(q, law, cycle), cycle)
    if law == "copies":
        return copies_failure(tries, q)
    if law == "chase":
        return chase_failure(tries, q)
    return arq_failure(tries, q)


def error(attempt: int, q: ArrayLike, law: Law = "none") -> Floats:
    """Return the chance that try number ``attempt`` (from 1) fails if all before it did.

    ``f_n / f_(n-1)`` of what failed together, q without combining; 0 where no packet comes to it.
    """
    if law == "none":
        return np.asarray(q, dtype=np.float64)
    before = failure(attempt - 1, q, law)
    reached = before > 0.0
    now = failure(attempt, q, law)
    return np.asarray(np.where(reached, now / np.where(reached, before, 1.0), 0.0))


def residual_loss(
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the chance that a packet exhausts its N tries and is lost; 0 without a limit."""
    limit, _ = _limits(max_transmissions, law, link_layer)
    if limit is None:
        return np.zeros(np.shape(q)[:-1] if law == "copies" else np.shape(q))
    return failure(limit, q, law)


def expected_passes(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return the mean number of tries of the unluckiest of ``packets``, 0 for no packet.

    ``sum_n 1 - (1 - f_n)^packets`` over n = 0 .. N - 1, with f_n the failure of n tries: a pass is
    there if a packet failed in all before it (DERIVED). With it a payload of ``once`` seconds takes
    ``once E[tries] + delay (E[passes] - 1)`` in the mean.
    """
    packets = np.asarray(packets, dtype=np.float64)
    limit, cycle = _limits(max_transmissions, law, link_layer)
    total = np.where(packets > 0, 1.0, 0.0) * failure(0, q, law)
    for tries in range(1, _ENDLESS if limit is None else limit):
        fails = np.minimum(failure(tries, q, law, cycle), _SURE)
        happens = -np.expm1(packets * np.log1p(-fails))
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
    link_layer: LinkLayer = "unacknowledged",
) -> Arq:
    """Draw what sending ``packets`` packets takes when each is repeated until it gets through.

    Each pass repeats what the one before left over, a binomial draw; a message is lost only if a
    packet exhausts its tries, which in acknowledged mode begin again. Without a limit and without
    combining the repeats are negative binomial; chase combining makes them Poisson.
    """
    pending, total, tries = packets, 0, 0
    limit, cycle = _limits(max_transmissions, law, link_layer)
    while pending and tries < (_ENDLESS if limit is None else limit):
        total += pending
        attempt = 1 + (tries if cycle is None else tries % cycle)
        tries += 1
        pending = int(rng.binomial(pending, float(error(attempt, q, law))))
    return Arq(total, tries, pending > 0)


def safe_packets(
    transmissions: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None = None,
    law: Law = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in 999 of 1000 cases.

    The 0.1 % quantile of Binomial(transmissions, 1 - q); exact, fractions included, for q = 0. A
    limit of tries matters in acknowledged mode only: else it loses packets and spares none.
    """
    tries = np.maximum(np.asarray(transmissions, dtype=np.float64), 0.0)
    q = np.asarray(q, dtype=np.float64)
    _, cycle = _limits(max_transmissions, law, link_layer)
    if cycle is not None:
        safe = renewed_safe_packets(tries, _listed(q, law, cycle), cycle, _UNLUCKY)
    elif law == "copies":
        safe = copies_safe_packets(tries, q, _UNLUCKY)
    elif law == "chase":
        safe = chase_safe_packets(np.minimum(tries, _COUNTABLE), q, _UNLUCKY)
    else:
        safe = arq_safe_packets(tries, q, _UNLUCKY)
    if law == "copies":
        safe = np.maximum(safe, copies_safe_alone(tries, q, _UNLUCKY))
        q = q[..., 0]
    return np.where(q > 0, safe, tries)


def likely_tries(
    packets: ArrayLike,
    q: ArrayLike,
    max_transmissions: int | None,
    law: Law = "none",
    link_layer: LinkLayer = "unacknowledged",
) -> Floats:
    """Return tries that the unluckiest of ``packets`` exceeds once in a thousand messages.

    Smallest k with ``packets f_k <= 0.001``, at most the limit; f_k is q^k without combining
    (DERIVED).
    """
    packets = np.maximum(np.asarray(packets, dtype=np.float64), 1.0)
    end, cycle = _limits(max_transmissions, law, link_layer)
    limit = _ENDLESS if end is None else end
    if cycle is not None:
        listed = _listed(q, law, cycle)
        return np.minimum(renewed_likely_tries(packets, listed, cycle, _UNLUCKY), limit)
    if law != "none":
        return np.minimum(copies_likely_tries(packets, _listed(q, law, limit), _UNLUCKY), limit)
    return np.minimum(arq_likely_tries(packets, q, _UNLUCKY), limit)


def _limits(
    max_transmissions: int | None, law: Law, link_layer: LinkLayer
) -> tuple[int | None, int | None]:
    """Return the tries after which a packet is lost, and those after which its copies are."""
    if link_layer == "unacknowledged":
        return max_transmissions, None
    return None, None if law == "none" else max_transmissions


def _listed(q: ArrayLike, law: Law, most: int) -> Floats:
    """Return the failures of 1, 2 ... tries that are not forgotten, ``most`` at most, [..., n]."""
    if law == "copies":
        return np.asarray(q, dtype=np.float64)[..., :most]
    return chase_failures(q, most)
