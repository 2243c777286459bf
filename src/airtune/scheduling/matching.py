"""Matching clients to sub-channels, one each."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from airtune.errors import UserError
from airtune.radio.units import Bools, Floats, Ints


def least_sum_matching(costs: Floats) -> Ints:
    """Return each client's sub-channel, [clients], with the least sum of ``costs``.

    ``costs`` is [clients, channels], such as seconds; inf forbids a pair. FOUND: the assignment
    problem (Kuhn, 1955, the Hungarian method), solved by SciPy. Raises ValueError if no matching
    gives every client a channel of its own, UserError for costs that are NaN or -inf.
    """
    _check(costs)
    if not _serves_all(np.isfinite(costs)):
        raise ValueError(_impossible(costs))
    return np.asarray(linear_sum_assignment(costs)[1], dtype=np.int64)


def bottleneck_matching(costs: Floats) -> Ints:
    """Return each client's sub-channel, [clients], with the least largest cost.

    The smallest threshold below which a maximum bipartite matching still serves every client, by
    halving the sorted costs (FOUND: the bottleneck assignment problem). Of all matchings within the
    threshold it is one with the least sum. ``costs`` [clients, channels] as above, and the
    same errors.
    """
    _check(costs)
    if not _serves_all(np.isfinite(costs)):
        raise ValueError(_impossible(costs))
    levels = np.unique(costs[np.isfinite(costs)])
    # The most expensive of each client's cheapest pairs is a bound from below.
    low = int(np.searchsorted(levels, costs.min(axis=1).max())) if costs.size else 0
    high = len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if _serves_all(costs <= levels[middle]):
            high = middle
        else:
            low = middle + 1
    within = np.where(costs <= levels[high], costs, np.inf) if costs.size else costs
    return np.asarray(linear_sum_assignment(within)[1], dtype=np.int64)


def _check(costs: Floats) -> None:
    wrong = np.argwhere(np.isnan(costs) | np.isneginf(costs))
    if wrong.size:
        client, channel = wrong[0]
        raise UserError(
            f"costs has {costs[client, channel]:g} for client {client} and sub-channel {channel}; "
            "it must be numbers, or inf for a pair that may not be."
        )


def _serves_all(allowed: Bools) -> bool:
    """Return whether every client can have an allowed channel of its own."""
    if allowed.shape[0] > allowed.shape[1]:
        return False
    matched = maximum_bipartite_matching(csr_array(allowed), perm_type="column")
    return bool((matched >= 0).all())


def _impossible(costs: Floats) -> str:
    clients, channels = costs.shape
    return f"no matching gives each of {clients} clients one of {channels} sub-channels of its own"
