"""Dividing the uplink spectrum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, rate_bps, rate_slope
from airtune.radio.units import Bools, Floats, Ints, from_db

_STEPS = 40  # of Newton's method, which takes about seven


def equal_shares(count: int, bandwidth_hz: float) -> Floats:
    """Return ``B / count`` for each client, in Hz."""
    return np.full(count, bandwidth_hz / max(count, 1))


def min_max_delay(
    payload_bits: ArrayLike,
    snr_hz: Floats,
    compute_seconds: ArrayLike,
    bandwidth_hz: float,
    model: RateModel,
) -> tuple[Floats, Floats]:
    """Return shares (Hz) and finish times (s) of the split whose last client finishes first.

    minimise  max_k ( t_k + s_k / r_k(b_k) )   subject to  sum b_k <= B

    Each packet is sent once: repeats are left out. Bisection on the finish time with the
    closed-form inverse of the rate inside. All finish together, unless a client's power, not its
    share, is what holds it back: then the others divide the spectrum that it cannot use. Every
    ``snr_hz`` must be positive. Newton's method finds the root beforehand, so that the bisection
    asks only next to it: same bytes, less time.
    """
    bits = np.broadcast_to(np.maximum(payload_bits, 1.0), snr_hz.shape)
    start = np.broadcast_to(np.asarray(compute_seconds, dtype=np.float64), snr_hz.shape)

    def shares(finish: float) -> Floats:
        return bandwidth_for_rate_hz(bits / np.maximum(finish - start, 1e-12), snr_hz, model)

    equal = equal_shares(snr_hz.size, bandwidth_hz)
    late = float(np.max(start + bits / rate_bps(equal, snr_hz, model)))
    early = float(np.max(start + bits / rate_bps(bandwidth_hz, snr_hz, model)))
    if shares(early).sum() <= bandwidth_hz:
        late = early

    def slope(finish: float, width: Floats) -> float:
        left = np.maximum(finish - start, 1e-12)
        per_hz = rate_slope(width, snr_hz, model)
        with np.errstate(divide="ignore"):
            return -float((bits / left**2 / per_hz).sum())

    too_short, enough = (
        _bracket(shares, slope, early, late, bandwidth_hz, _slack(model))
        if late - early > 1e-12 * late
        else (early, late)
    )
    found = None  # the shares at late, once they were asked for
    while late - early > 1e-12 * late:
        middle = 0.5 * (early + late)
        if not early < middle < late:
            break
        if middle >= enough:
            late, found = middle, None
        elif middle > too_short and (width := shares(middle)).sum() <= bandwidth_hz:
            late, found = middle, width
        else:
            early = middle
    width = shares(late) if found is None else found
    if not np.isfinite(width).all():
        width = equal
    # More spectrum never lowers a rate, so what is left over goes to all in proportion.
    width = width * (bandwidth_hz / width.sum())
    return width, start + bits / rate_bps(width, snr_hz, model)


def max_min_rate(snr_hz: Floats, bandwidth_hz: float, model: RateModel) -> Floats:
    """Return the shares (Hz) whose slowest link is fastest, whatever there is to send.

    maximise  min_k r_k(b_k)   subject to  sum b_k <= B

    DERIVED: it is :func:`min_max_delay` of equal payloads that all begin at once.
    """
    return min_max_delay(1e6, snr_hz, 0.0, bandwidth_hz, model)[0]


def best_snr_shares(snr_hz: Floats, bandwidth_hz: float) -> Floats:
    """Return the shares (Hz) with the largest sum of rates, ``b_k = B snr_k / sum_j snr_j``.

    maximise  sum_k r_k(b_k)   subject to  sum b_k <= B

    DERIVED: a link's slope depends on ``snr_k / b_k`` alone, so equal ratios have equal slopes, and
    rates are concave in bandwidth; gap, cap and least SNR of the rate change nothing of that.
    Strong links get nearly everything. Every ``snr_hz`` must be positive. With law mcs they are
    best for the concave curve above the steps, so the sum is at most 12 % below the largest.
    """
    return np.asarray(bandwidth_hz * snr_hz / snr_hz.sum())


def bounded(share_hz: Floats, least_hz: Floats, most_hz: Floats, bandwidth_hz: float) -> Floats:
    """Return ``min(max(c share_k, least_k), most_k)`` in Hz, [n], with the c that fills the band.

    What of a division leaves nobody below the least or above the most, as it is or in proportion.
    With shares by SNR it is still the one of the largest sum of rates (DERIVED: all between their
    bounds have the same slope). ``least_hz`` must fit into the band, shares be positive; all get
    the most if that fits.
    """
    if ((share_hz >= least_hz) & (share_hz <= most_hz)).all():
        return share_hz
    most_hz = np.minimum(most_hz, bandwidth_hz)
    if least_hz.sum() >= bandwidth_hz:
        return least_hz
    if most_hz.sum() <= bandwidth_hz:
        return most_hz

    def excess(c: float) -> float:
        return float(np.clip(c * share_hz, least_hz, most_hz).sum() / bandwidth_hz - 1.0)

    c = brentq(excess, 0.0, float((most_hz / share_hz).max()), xtol=1e-15, rtol=1e-14)
    return np.asarray(np.clip(c * share_hz, least_hz, most_hz))


def longest_fitting(needed: Floats | Ints, available: float) -> Bools:
    """Return who can be served, [n], if those who need least are served first.

    As many as possible: no set of more has a smaller sum (DERIVED, by exchange). Ties by index.
    """
    order = np.argsort(needed, kind="stable")
    fits = np.zeros(len(needed), dtype=np.bool_)
    fits[order[: int(np.searchsorted(needed[order].cumsum(), available, side="right"))]] = True
    return fits


def _slack(model: RateModel) -> float:
    """Return a relative error that sums of inverted rates stay far below.

    The spectral efficiency in nats is found to some roundings of one, so small ones are less exact.
    Against long doubles the largest error of a single rate is 1/280 of this, for any model.
    """
    nats_min = float(np.log1p(from_db(model.min_snr_db - model.gap_db)))
    return 2e-13 / min(nats_min, 1.0)


def _bracket(
    shares: Callable[[float], Floats],
    slope: Callable[[float, Floats], float],
    early: float,
    late: float,
    bandwidth_hz: float,
    slack: float,
) -> tuple[float, float]:
    """Return finish times between which the root lies, whatever rounding does to the sums.

    At the first the shares are beyond the band by more than ``slack``, at the second within it by
    more, so all that is earlier or later needs no asking: what is needed falls with time. Newton's
    method on ``log sum b`` over ``log T``, whose slope is at most -1 (DERIVED: shares are convex in
    the rate and zero at zero).
    """
    too_short, enough = early, late
    guess = late
    probes = [1.0 - 3.0 * slack, 1.0 + 3.0 * slack]
    for _ in range(_STEPS):
        width = shares(guess)
        excess = float(np.log(width.sum() / bandwidth_hz))
        if excess > slack:
            too_short = max(too_short, guess)
        elif excess < -slack:
            enough = min(enough, guess)
        if abs(excess) <= slack:
            break
        steepness = guess * slope(guess, width) / width.sum() if np.isfinite(excess) else -np.inf
        new = guess * float(np.exp(-excess / steepness))
        # Where the slope says nothing (power binds) or points outside, the middle will do.
        guess = new if too_short < new < enough else 0.5 * (too_short + enough)
        if not too_short < guess < enough:
            return too_short, enough
    for finish in (guess * factor for factor in probes):
        if too_short < finish < enough:
            excess = float(np.log(shares(finish).sum() / bandwidth_hz))
            too_short = finish if excess > slack else too_short
            enough = finish if excess < -slack else enough
    return too_short, enough
