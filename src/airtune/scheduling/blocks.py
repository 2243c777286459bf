"""Dividing whole resource blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, rate_bps
from airtune.radio.units import Floats, Ints

_NEAR = 1e-12  # finish times that are no further apart are one
_EARLIER = 1e-9  # a finish time falls by more than this, or nothing is gained


def min_max_blocks(
    payload_bits: ArrayLike,
    snr_hz: Floats,
    compute_seconds: ArrayLike,
    blocks: int,
    model: RateModel,
    least: ArrayLike = 1,
    most: ArrayLike | None = None,
) -> Ints:
    """Return how many of ``blocks`` each client gets, [n], so that the last finishes first.

    minimise  max_k ( t_k + s_k / r_k(m_k block) )   subject to  sum m_k <= M

    with whole m_k from ``least`` to ``most``, [n] or one for all; None is no bound but M.

    Bisection on the finish time T: by then client k is done with ``ceil(b_k / block)`` blocks, b_k
    being the bandwidth that its rate needs. Exact for every rate that never falls with bandwidth,
    also where one more block gains nothing and three more do (DERIVED). Who cannot be done by T,
    as its power holds it back, gets what it can use, and T is that of the others. Blocks that are
    left over go to whom they help, the latest first; those that help nobody stay.

    A block is ``model.resource_block_hz`` wide, every link equally good on all of them; ``least``
    is at least 1 and its sum within ``blocks``. Raises ValueError if there are fewer blocks than
    clients.
    """
    count = snr_hz.size
    if blocks < count:
        raise ValueError(f"{count} clients cannot share {blocks} resource blocks: each needs one")
    division = _Division(
        np.broadcast_to(np.maximum(payload_bits, 1.0), snr_hz.shape),
        np.broadcast_to(np.asarray(compute_seconds, dtype=np.float64), snr_hz.shape),
        snr_hz,
        model,
    )
    given = np.array(np.broadcast_to(least, snr_hz.shape), dtype=np.int64)
    if count == 0:
        return given
    # More than the fewest blocks of its highest rate are of no use to anybody.
    all_of_them = np.full(count, blocks)
    bound = all_of_them if most is None else np.clip(most, given, blocks).astype(np.int64)
    most = division.needed(division.finish(bound), given, bound)
    while True:
        given = division.earliest(given, most, blocks)
        now, left = division.finish(given), blocks - given.sum()
        further = division.needed(now * (1.0 - _EARLIER), given, most)
        step = further - given
        helped = (step > 0) & (step <= left) & (division.finish(further) < now)
        if not helped.any():
            return given
        if (most > given)[~helped].any():
            # What is left is too little for these, and the others can be done earlier yet.
            most = np.where(helped, most, given)
            continue
        # Several are the last together, and there is not enough for all of them.
        late = np.flatnonzero(helped)[np.argsort(-now[helped], kind="stable")]
        served = late[step[late].cumsum() <= left]
        given[served] = further[served]


class _Division:
    """Uploads [n] that share blocks: when they end with so many, and how many they need."""

    def __init__(self, bits: Floats, start: Floats, snr_hz: Floats, model: RateModel) -> None:
        self._bits, self._start, self._snr_hz, self._model = bits, start, snr_hz, model

    def finish(self, given: Ints) -> Floats:
        """Return when each ends with its ``given`` blocks, in seconds."""
        width = given * self._model.resource_block_hz
        return self._start + self._bits / rate_bps(width, self._snr_hz, self._model)

    def needed(self, time: Floats | float, least: Ints, most: Ints) -> Ints:
        """Return the fewest blocks from ``least`` on to end by ``time``; ``most`` if none do."""
        rate = self._bits / np.maximum(time - self._start, 1e-12)
        width = bandwidth_for_rate_hz(rate, self._snr_hz, self._model)
        fewest = np.ceil(width / self._model.resource_block_hz)
        found = np.clip(fewest, least, most).astype(np.int64)
        # Rounding may be one block off: the rates themselves decide.
        found -= (found > least) & (self.finish(np.maximum(found - 1, 1)) <= time)
        found += (found < most) & (self.finish(found) > time)
        return found

    def earliest(self, least: Ints, most: Ints, blocks: int) -> Ints:
        """Return the division whose last client ends first, of those whom blocks can help."""
        if most.sum() <= blocks:
            return most
        early, late = float(self.finish(most).min()), float(self.finish(least).max())
        given = self.needed(late, least, most)
        while late - early > _NEAR * late:
            middle = 0.5 * (early + late)
            if not early < middle < late:
                break
            found = self.needed(middle, least, most)
            if found.sum() <= blocks:
                late, given = middle, found
            else:
                early = middle
        return given
