"""Plain ARQ: a failed try is forgotten, and the next one has the same error rate q.

``Pr(n tries all fail) = q^n``, and of m tries Binomial(m, 1 - q) get through.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrik

from airtune.radio.units import Floats

_COUNTABLE = 2.0**53
_SURE = float(np.nextafter(1.0, 0.0))


def arq_failure(tries: ArrayLike, q: ArrayLike) -> Floats:
    """Return ``q^tries``."""
    return np.asarray(np.power(np.asarray(q, dtype=np.float64), np.asarray(tries)))


def arq_transmissions(q: ArrayLike, max_transmissions: int | None) -> Floats:
    """Return the mean number of tries per packet, ``(1 - q^N) / (1 - q)``, N may be endless."""
    q = np.asarray(q, dtype=np.float64)
    lost = np.zeros_like(q) if max_transmissions is None else arq_failure(max_transmissions, q)
    return np.asarray((1.0 - lost) / (1.0 - q))


def arq_safe_packets(transmissions: ArrayLike, q: ArrayLike, unlucky: float) -> Floats:
    """Return how many packets ``transmissions`` tries deliver in all but ``unlucky`` cases.

    The quantile of Binomial(transmissions, 1 - q).
    """
    whole = np.minimum(np.floor(transmissions), _COUNTABLE).astype(np.int64)
    success = 1.0 - np.minimum(q, _SURE)  # or the quantile of no chance at all is no number
    # scipy.stats has this quantile ready, but takes a third of a second to import.
    above = np.ceil(bdtrik(unlucky, whole, success))
    below = np.maximum(above - 1.0, 0.0)
    quantile = np.where(bdtr(below, whole, success) >= unlucky, below, above)
    return np.where(whole > 0, quantile, 0.0)


def arq_likely_tries(packets: ArrayLike, q: ArrayLike, unlucky: float) -> Floats:
    """Return the smallest k >= 1 with ``packets q^k <= unlucky``."""
    q = np.clip(q, 1e-300, 1.0 - 1e-12)
    return np.maximum(np.ceil(np.log(np.asarray(packets) / unlucky) / -np.log(q)), 1.0)
