"""Kept ratio and bandwidth by drift plus penalty: the online stage of TSFA.

    minimise  lim (1/T) sum_t sum_n p_n e_n(t)   subject to   lim (1/T) sum_t tau_n(t) <= budget

with a virtual queue Q_n for each client's delay, ``V sum_n p_n e_n + sum_n Q_n tau_n`` is
minimised every round over what each client may send and over the spectrum (specification 3.6,
DERIVED there; checked here against searches). e_n is the part of a client's squared change that it
does not send.

Ours: the floor that a queue has inside the bandwidth rule, without which a client with an empty
queue gets no spectrum; V relative to the cell; the second reading with one queue on the round's
slowest client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, rate_bps, rate_slope
from airtune.radio.units import Floats, Ints
from airtune.scheduling.bandwidth import equal_shares
from airtune.scheduling.lyapunov import after as after  # queues of seconds
from airtune.scheduling.lyapunov import score

_PASSES = 8
_DAMPING = 0.5
_TAUS = 48  # round times that are compared
_EMPTY = 1e-9  # a queue of no seconds has some weight, or nobody would be given spectrum


@dataclass(frozen=True)
class Demand:
    """What n clients could send: a fixed part, and pieces that each take off some error.

    ``errors`` [n, pieces] are shares of a client's error, ``bits`` [n, pieces] their sizes, both
    by descending error per bit; ``fixed_bits`` and ``compute_seconds`` [n]; ``weights`` p [n] sum
    to one. At least ``least`` pieces are sent.
    """

    errors: Floats
    bits: Floats
    fixed_bits: Floats
    compute_seconds: Floats
    weights: Floats
    least: int

    @classmethod
    def of(
        cls,
        errors: Floats,
        piece_bits: Floats,
        fixed_bits: Floats,
        compute_seconds: Floats,
        weights: Floats,
        least: int,
        most: int | None = None,
    ) -> Demand:
        """Sort pieces [n, pieces] of sizes [pieces] by error per bit; only ``most`` are sent."""
        sizes = np.broadcast_to(piece_bits, errors.shape)
        order = np.argsort(-errors / sizes, axis=1, kind="stable")[:, :most]
        return cls(
            np.take_along_axis(errors, order, axis=1),
            np.take_along_axis(sizes, order, axis=1),
            fixed_bits,
            compute_seconds,
            weights,
            least,
        )

    def sizes(self, pieces: Ints) -> Floats:
        """Return the bits of messages with so many pieces [n], the first ones."""
        total = np.concatenate([np.zeros((len(self.bits), 1)), self.bits.cumsum(1)], axis=1)
        return np.asarray(self.fixed_bits + total[np.arange(len(pieces)), pieces])

    def left(self, pieces: Ints) -> Floats:
        """Return each client's error e_n with so many pieces [n]."""
        total = np.concatenate([np.zeros((len(self.bits), 1)), self.errors.cumsum(1)], axis=1)
        return np.asarray(np.maximum(1.0 - total[np.arange(len(pieces)), pieces], 0.0))

    def of_clients(self, chosen: Ints) -> Demand:
        """Return the demand of some of the clients."""
        return replace(
            self,
            errors=self.errors[chosen],
            bits=self.bits[chosen],
            fixed_bits=self.fixed_bits[chosen],
            compute_seconds=self.compute_seconds[chosen],
            weights=self.weights[chosen] / self.weights[chosen].sum(),
        )


@dataclass(frozen=True)
class Band:
    """The spectrum that is divided, and the links [n] that it is divided over.

    ``tries`` is the mean number of them that a packet takes on each link, whatever its share.
    """

    bandwidth_hz: float
    snr_hz: Floats
    model: RateModel
    tries: Floats | float = 1.0

    def rate(self, share_hz: Floats | float) -> Floats:
        """Return what each link delivers with its share, bit/s: its rate over the tries."""
        return np.asarray(rate_bps(share_hz, self.snr_hz, self.model) / self.tries)

    def needed_hz(self, bits: Floats, seconds: Floats) -> Floats:
        """Return the share in Hz with which ``bits`` [n, sizes] are delivered in seconds [n]."""
        tries = np.broadcast_to(self.tries, self.snr_hz.shape)[:, None]
        return bandwidth_for_rate_hz(
            tries * bits / seconds[:, None], self.snr_hz[:, None], self.model
        )


def threshold(demand: Demand, queue: Floats, rate: Floats, v: float) -> Ints:
    """Return how many pieces each client sends: those with ``V p e_k >= Q bits_k / R``."""
    worth = v * demand.weights[:, None] * demand.errors
    price = (queue / rate)[:, None] * demand.bits
    return np.maximum((worth >= price).sum(1), demand.least)


def square_root_shares(load: Floats, band: Band, share_hz: Floats) -> Floats:
    """Return shares by ``b_n ~ sqrt(load_n / efficiency_n)``, efficiencies as they are now.

    They minimise ``sum_n load_n / (b_n efficiency_n)`` for fixed efficiencies.
    """
    efficiency = band.rate(share_hz) / share_hz
    root = np.sqrt(load / efficiency)
    return np.asarray(band.bandwidth_hz * root / root.sum())


def priced_shares(load: Floats, band: Band) -> Floats:
    """Return the shares that minimise ``sum_n load_n / R_n(b_n)``; loads are positive.

    A root in the price of a hertz, and inside by bisection on b of ``load R'(b) / R(b)^2 = price``.
    """

    def shares(log_price: float) -> Floats:
        low = np.full(len(load), 1e-12 * band.bandwidth_hz)
        high = np.full(len(load), band.bandwidth_hz)
        for _ in range(60):
            middle = np.sqrt(low * high)
            slope = rate_slope(middle, band.snr_hz, band.model) / band.tries
            saved = load * slope / band.rate(middle) ** 2
            wide = saved < np.exp(log_price)
            low, high = np.where(wide, low, middle), np.where(wide, middle, high)
        return high

    low, high = -80.0, 80.0  # of the logarithm of seconds per hertz
    found = shares(low)
    if found.sum() > band.bandwidth_hz:  # else power, not spectrum, is what all lack
        price = brentq(lambda p: np.log(shares(p).sum() / band.bandwidth_hz), low, high, xtol=1e-9)
        found = shares(price)
    return np.asarray(found * (band.bandwidth_hz / found.sum()))


def drift_plus_penalty(
    demand: Demand, band: Band, queue: Floats, v: float, floor_s: float, exact: bool = False
) -> tuple[Floats, Ints]:
    """Return shares in Hz and numbers of pieces [n]: the first reading, a queue for each client.

    Pieces and spectrum are chosen in turn, shares damped by half. Inside the bandwidth rule no
    queue is below ``floor_s``.
    """
    share = equal_shares(len(queue), band.bandwidth_hz)
    held = np.maximum(queue, max(floor_s, _EMPTY))
    for _ in range(_PASSES):
        load = held * demand.sizes(threshold(demand, queue, band.rate(share), v))
        new = priced_shares(load, band) if exact else square_root_shares(load, band, share)
        share = _DAMPING * share + (1.0 - _DAMPING) * new
    return share, threshold(demand, queue, band.rate(share), v)


def within(demand: Demand, band: Band, seconds: float) -> tuple[Floats, Ints] | None:
    """Return shares and numbers of pieces for little error in a round of ``seconds``.

    A client's m pieces need the bandwidth ``b(m)`` at which they arrive in time; each further
    piece needs more of it and takes off less, so pieces are bought by ``p e_k`` for each hertz
    until the band is full: best but for what one more piece takes off. None if the fewest pieces
    do not fit.
    """
    left = seconds - demand.compute_seconds
    if (left <= 0).any():
        return None
    count = demand.errors.shape[1]
    sizes = demand.fixed_bits[:, None] + np.concatenate(
        [np.zeros((len(left), 1)), demand.bits.cumsum(1)], axis=1
    )
    needed = band.needed_hz(sizes, left)
    first = needed[:, demand.least]
    if not np.isfinite(first).all() or first.sum() > band.bandwidth_hz:
        return None
    with np.errstate(invalid="ignore"):
        further = np.diff(needed[:, demand.least :], axis=1)
    further = np.where(np.isfinite(further), further, np.inf)
    worth = demand.weights[:, None] * demand.errors[:, demand.least :] / further
    # Equal pieces of one client are bought in their order: worth never rises along a row.
    worth = np.minimum.accumulate(worth, axis=1)
    order = np.argsort(-worth, axis=None, kind="stable")
    owner = order // max(count - demand.least, 1)
    spent = first.sum() + further.ravel()[order].cumsum()
    bought = order[: int(np.searchsorted(spent, band.bandwidth_hz, side="right"))]
    pieces = demand.least + np.bincount(owner[: len(bought)], minlength=len(left))
    share = needed[np.arange(len(left)), pieces]
    return np.asarray(share * (band.bandwidth_hz / share.sum())), pieces


def round_maximum(demand: Demand, band: Band, queue_s: float, v: float) -> tuple[Floats, Ints]:
    """Return shares and numbers of pieces: the second reading, a queue on the slowest client.

    Round times are compared on a logarithmic grid, from the shortest possible to the one in which
    everything arrives, by ``V sum_n p_n e_n + Q tau``.
    """
    equal = equal_shares(len(band.snr_hz), band.bandwidth_hz)
    everything = np.full(len(equal), demand.errors.shape[1])
    finish = demand.compute_seconds + demand.sizes(everything) / band.rate(equal)
    longest = 1.001 * float(finish.max())
    fewest = np.full(len(equal), demand.least)
    alone = band.rate(band.bandwidth_hz)
    shortest = float((demand.compute_seconds + demand.sizes(fewest) / alone).max())
    best: tuple[float, Floats, Ints] | None = None
    for tau in np.geomspace(shortest, max(longest, shortest), _TAUS):
        found = within(demand, band, float(tau))
        if found is not None:
            error = float(demand.weights @ demand.left(found[1]))
            cost = float(score(error, [queue_s], [tau], v))
            if best is None or cost < best[0]:
                best = cost, *found
    assert best is not None  # all fits into the longest
    return best[1], best[2]
