"""Dividing whole resource blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.rate import RateModel, rate_bps
from airtune.radio.units import Floats, Ints


def min_max_blocks(
    payload_bits: ArrayLike,
    snr_hz: Floats,
    compute_seconds: ArrayLike,
    blocks: int,
    model: RateModel,
) -> Ints:
    """Return how many of ``blocks`` each client gets, [n], so that the last finishes first.

    minimise  max_k ( t_k + s_k / r_k(m_k block) )   subject to  sum m_k <= M, m_k whole

    Each gets one block, each further one goes to the slowest who gains by it; a block is
    ``model.resource_block_hz`` wide and every link equally good on all of them. Optimal (DERIVED):
    more blocks never slow a client, so whoever is later than the optimum has fewer blocks than
    there, and none is given beyond the optimum's before all keep to it. Blocks of which nobody
    gains are left over. Raises ValueError if there are fewer blocks than clients.
    """
    count = snr_hz.size
    if blocks < count:
        raise ValueError(f"{count} clients cannot share {blocks} resource blocks: each needs one")
    bits = np.broadcast_to(np.maximum(payload_bits, 1.0), snr_hz.shape)
    start = np.broadcast_to(np.asarray(compute_seconds, dtype=np.float64), snr_hz.shape)
    given = np.ones(count, dtype=np.int64)
    if count == 0:
        return given

    def finish(client: int) -> float:
        width = given[client] * model.resource_block_hz
        return float(start[client] + bits[client] / rate_bps(width, snr_hz[client], model))

    times = start + bits / rate_bps(model.resource_block_hz, snr_hz, model)
    for _ in range(blocks - count):
        slowest = int(times.argmax())
        while times[slowest] > -np.inf:
            given[slowest] += 1
            after = finish(slowest)
            if after < times[slowest]:
                times[slowest] = after
                break
            # Power, not spectrum, holds this one back: it is asked no more.
            given[slowest] -= 1
            times[slowest] = -np.inf
            slowest = int(times.argmax())
        else:
            break
    return given
