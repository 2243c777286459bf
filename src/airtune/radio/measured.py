"""Links that are measured as they are used, between machines: estimates in place of a cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.radio.cell import Links
from airtune.radio.units import Bools, Floats, Ints

GAIN = 0.3  # weight of the newest of many observations of one size
_FIRST = 0.2  # standard deviation that one observation alone is taken to have, relative
_VAGUE = 0.25  # that of a delay seen once, relative
_LEAST = 0.02  # and the least that many have: no link is as steady as its measures
_BEYOND = 3.0  # standard deviations at which a link is another one than before
_CHANGED = np.log(1.25)  # and so many times as fast or slow, at the same time


@dataclass(frozen=True)
class MeasuredLinks(Links):
    """Links by what devices reported of them; arrays are ``[clients]``, NaN where nothing was.

    ``rate_bps`` is a client's own uplink, which nobody else uses, ``deviation`` the standard
    deviation of its logarithm. A message takes ``extra_bits`` more than its payload. ``rest_s`` are
    the seconds of an exchange besides the upload: the way down, computing, and what the engine
    between the machines takes; ``rest_deviation_s`` their standard deviation. The fields of
    ``Links`` order clients by their rates, and say nothing else. ``computing_in_rest`` is false
    where no exchange was seen that computed. ``age`` are rounds since a link was measured last;
    ``doubted`` is a link that seems to have become slower, which nobody has measured.
    """

    rate_bps: Floats
    deviation: Floats
    extra_bits: Floats
    rest_s: Floats
    rest_deviation_s: Floats
    computing_in_rest: Bools
    doubted: Bools
    age: Ints


class Tracked:
    """Exponentially weighted mean and variance of what is observed of each client.

    ``W <- (1 - g) W + w``, ``m <- m + w/W d``, ``v <- (1 - w/W)(v + w/W d^2)`` with ``d = x - m``,
    w the size of an observation (the usual recursion with weights): a short message says less than
    a long one. With ``beyond`` an observation that far from the mean and more than 3 standard
    deviations begins anew (ours): links change at once, when somebody else's traffic begins or a
    device moves to another network.
    """

    def __init__(
        self, clients: int, first: float, least: float, relative: bool, beyond: float = np.inf
    ) -> None:
        """``first`` and ``least`` are standard deviations; ``relative``: times the mean."""
        self.mean = np.full(clients, np.nan)
        self._variance = np.full(clients, np.nan)
        self._weight = np.zeros(clients)
        self._first, self._least, self._relative, self._beyond = first, least, relative, beyond

    @property
    def deviation(self) -> Floats:
        """Standard deviations, [clients]."""
        return np.sqrt(np.maximum(self._variance, self._unit() * self._least**2))

    def see(self, client: int, value: float, size: float = 1.0) -> None:
        """Take an observation."""
        away = value - self.mean[client]
        if np.isnan(away) or abs(away) > max(self._beyond, _BEYOND * self.deviation[client]):
            self.mean[client] = value
            self._variance[client] = self._unit()[client] * self._first**2
            self._weight[client] = size
            return
        self._weight[client] = (1.0 - GAIN) * self._weight[client] + size
        gain = size / self._weight[client]
        self.mean[client] += gain * away
        self._variance[client] = (1.0 - gain) * (self._variance[client] + gain * away**2)

    def _unit(self) -> Floats:
        return self.mean**2 if self._relative else np.ones_like(self.mean)


class Rates:
    """Each client's rate one way: exponentially weighted in its logarithm, and by bits."""

    def __init__(self, clients: int) -> None:
        self._log = Tracked(clients, _FIRST, _LEAST, relative=False, beyond=float(_CHANGED))
        self._extra = Tracked(clients, 0.0, 0.0, relative=False)

    def see(self, client: int, payload_bits: int, bits: int, seconds: float) -> None:
        """Take a message: its payload, and what moved in how many seconds for it."""
        if bits > 0 and seconds > 0.0:
            self._log.see(client, float(np.log(bits / seconds)), float(bits))
            self._extra.see(client, float(max(bits - payload_bits, 0)))

    @property
    def rate_bps(self) -> Floats:
        """Estimates, [clients]; NaN where nothing was measured."""
        return np.exp(self._log.mean)

    @property
    def deviation(self) -> Floats:
        """Standard deviations of the logarithms of rates, [clients]."""
        return self._log.deviation

    @property
    def extra_bits(self) -> Floats:
        """What a message takes besides its payload, [clients]."""
        return self._extra.mean


class Rests:
    """Seconds of each client's exchanges besides its upload."""

    def __init__(self, clients: int) -> None:
        self._seconds = Tracked(clients, _VAGUE, _LEAST, relative=True)

    def see(self, client: int, seconds: float, at_least: bool = False) -> None:
        """Take an observation; of one that was given up only the ``at_least`` is known."""
        if at_least and not seconds > self.seconds[client]:
            return
        self._seconds.see(client, seconds)

    @property
    def seconds(self) -> Floats:
        """Means, [clients]."""
        return self._seconds.mean

    @property
    def deviation(self) -> Floats:
        """Standard deviations in seconds, [clients]."""
        return self._seconds.deviation


class Ceilings:
    """What rates are at most, by answers that are not there when they should be (ours).

    An upload is reported with the answer after it, and late if that one is late. But where there is
    no answer after s seconds, the upload has taken ``s - rest - 2 s_rest`` or more. A rate below
    the estimate by as much as makes a link another one is planned with, until what was measured of
    it comes. Answers that came are no such sign: what is between the machines has its own pauses.
    """

    def __init__(self, clients: int) -> None:
        self.rate_bps = np.full(clients, np.nan)
        self._round = np.zeros(clients, dtype=np.int64)

    def see(
        self, client: int, round: int, bits: float, seconds: float, rates: Rates, rests: Rests
    ) -> None:
        """Take an exchange that is not over after ``seconds``, with a payload of so many bits."""
        spent = seconds - rests.seconds[client] - 2.0 * rests.deviation[client]
        known = rates.rate_bps[client]
        bits += float(np.nan_to_num(rates.extra_bits[client]))
        if spent > 0.0 and bits / spent * np.exp(_CHANGED) < known:  # false for NaN
            self.rate_bps[client] = np.fmin(self.rate_bps[client], bits / spent)
            self._round[client] = round

    def measured(self, client: int, round: int) -> None:
        """Take note that a round's upload was measured; in round 0 a link was sounded anew."""
        if round == 0 or round >= self._round[client]:
            self.rate_bps[client] = np.nan


def measured_links(
    round: int,
    rates: Rates,
    rests: Rests,
    engine_s: Floats,
    last: Ints,
    ceilings_bps: Floats | None = None,
) -> MeasuredLinks:
    """Return a round's links by what is known now.

    ``engine_s`` are seconds of idle exchanges, ``last`` the rounds of the last measurements,
    ``ceilings_bps`` rates of links that seem to have become slower; all [clients].
    """
    rate, deviation = rates.rate_bps, rates.deviation
    doubted = np.zeros(rate.shape, dtype=np.bool_)
    if ceilings_bps is not None:
        doubted = np.isfinite(ceilings_bps)
        rate = np.fmin(rate, ceilings_bps)
        deviation = np.where(doubted, np.fmax(deviation, _FIRST), deviation)
    seen = np.isfinite(rests.seconds)
    # Who was never measured comes first where clients are ordered: it may be the fastest.
    order, none = np.nan_to_num(rate, nan=np.inf), np.zeros_like(rate)
    flags = none > 0.0
    return MeasuredLinks(
        round=round,
        distance_m=none,
        line_of_sight=flags,
        mean_gain=order,
        gain=order,
        snr_hz=order,
        mean_snr_hz=order,
        planned_snr_hz=order,
        downlink_snr_hz=order,
        indoors=flags,
        rate_bps=rate,
        deviation=deviation,
        extra_bits=rates.extra_bits,
        rest_s=np.where(seen, rests.seconds, engine_s),
        rest_deviation_s=np.where(seen, rests.deviation, _VAGUE * engine_s),
        computing_in_rest=seen,
        doubted=doubted,
        age=round - last,
    )
