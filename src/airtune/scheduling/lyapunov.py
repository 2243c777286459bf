"""Drift plus penalty: keeping averages within budgets by virtual queues.

    minimise  lim (1/T) sum_t p(t)   subject to   lim (1/T) sum_t y_k(t) <= budget_k

by minimising ``V p(t) + sum_k Q_k(t) y_k(t)`` in every round over what can be chosen then, where
``Q_k(t+1) = max(0, Q_k(t) + y_k(t) - budget_k)``. FOUND (Neely, Stochastic Network Optimization,
2010, chapter 4): nothing needs to be known of how rounds are distributed; with independent rounds
and a policy that keeps budgets with some slack, the mean penalty is within ``B / V`` of the best,
and mean queues are at most ``(B + V (p_max - p_best)) / slack``, B being half the largest
mean of ``sum_k (y_k - budget_k)^2``. So V buys O(1/V) of penalty for O(V) of queue, which is how
far budgets may be overdrawn meanwhile: whatever y is, the mean of the first T rounds exceeds its
budget by at most ``(Q(T) - Q(0)) / T`` (DERIVED).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.units import Floats


def after(queue: ArrayLike, usage: ArrayLike, budget: ArrayLike) -> Floats:
    """Return ``max(0, Q + y - budget)``: the queues after a round."""
    return np.maximum(np.asarray(queue) + np.asarray(usage) - budget, 0.0)


def score(penalty: ArrayLike, queue: ArrayLike, usage: ArrayLike, v: float) -> Floats:
    """Return ``V p + sum_k Q_k y_k``, [...], of penalties [...] and usages [..., queues]."""
    return np.asarray(v * np.asarray(penalty) + np.asarray(usage) @ np.asarray(queue))


class VirtualQueues:
    """A controller with a queue for each budget; a system says what its actions cost and use.

    The queues [budgets] are given and returned, never kept, so that they can be a part of a
    server's state. A subclass adds what it chooses among: it works out ``penalty`` and ``usage`` of
    its candidates and asks :meth:`choose`, or minimises :meth:`score` in a form of its own.
    """

    def __init__(self, budgets: ArrayLike, v: float) -> None:
        """``budgets`` [budgets] are long-term means per round, in units of the usage.

        Raises ValueError if V is negative: the penalty would be sought.
        """
        if v < 0:
            raise ValueError(f"v is {v:g}; the weight of the penalty cannot be negative")
        self.budgets, self.v = np.atleast_1d(np.asarray(budgets, dtype=np.float64)), v

    def start(self) -> Floats:
        """Return empty queues."""
        return np.zeros(len(self.budgets))

    def score(self, queue: Floats, penalty: ArrayLike, usage: ArrayLike) -> Floats:
        """Return each candidate's drift plus penalty, [n]; ``usage`` is [n, budgets]."""
        return score(penalty, queue, usage, self.v)

    def choose(self, queue: Floats, penalty: ArrayLike, usage: ArrayLike) -> int:
        """Return the candidate with the least score, the first of equals."""
        return int(self.score(queue, penalty, usage).argmin())

    def after(self, queue: Floats, usage: ArrayLike) -> Floats:
        """Return the queues after a round that used so much, [budgets]."""
        return after(queue, usage, self.budgets)

    def overdraft(self, queue: Floats, rounds: int) -> Floats:
        """Return a bound on how far mean usage has exceeded budgets in so many rounds."""
        return np.asarray(queue) / max(rounds, 1)
