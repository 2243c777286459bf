"""SNRs that are stated, in place of those that distance and fading make."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.trace import read_trace
from airtune.radio.units import Floats, Ints, from_db


class Stated(Protocol):
    """P g / (N0 F) in Hz of every client; an SNR is that over the band divided by the clients."""

    def snr_hz(self, round: int) -> Floats:
        """Return that of a round, ``[clients]``."""

    def mean_snr_hz(self) -> Floats:
        """Return what the server takes for its mean, ``[clients]``."""


def stated(config: CellConfig, clients: int, seed: int) -> Stated | None:
    """Return what ``trace`` or ``snr_db`` states; None where places and fading make the SNR."""
    if config.trace is not None:
        return Replayed(config, clients)
    return None if config.snr_db is None else Uniform(config, config.snr_db, clients, seed)


class Uniform:
    """Each client's SNR is drawn anew each round, uniform in dB; the mean is that of the SNR."""

    def __init__(
        self, config: CellConfig, snr_db: tuple[float, float], clients: int, seed: int
    ) -> None:
        self._snr_db = snr_db
        self._share_hz = config.bandwidth_hz / clients
        self._clients = clients
        self._seed = seed

    def snr_hz(self, round: int) -> Floats:
        """Return what is drawn for a round."""
        drawn = generator(self._seed, "snr", round).uniform(*self._snr_db, self._clients)
        return from_db(drawn) * self._share_hz

    def mean_snr_hz(self) -> Floats:
        """Return the mean of what is drawn."""
        return np.full(self._clients, uniform_mean(self._snr_db) * self._share_hz)


class Replayed:
    """A trace's rounds in their order, begun anew at its end; its mean is over all of them.

    Round r of a run, counted from 1, is number ``(r - 1) mod rounds`` of the trace, counted from
    0. Raises ``UserError`` where the file will not do.
    """

    def __init__(self, config: CellConfig, clients: int) -> None:
        assert config.trace is not None
        trace = read_trace(config.trace, clients)
        self._snr_hz = trace.snr_hz(config.bandwidth_hz / clients, config.rate)

    def snr_hz(self, round: int) -> Floats:
        """Return the trace's values for a round."""
        return self._snr_hz[(round - 1) % len(self._snr_hz)]

    def mean_snr_hz(self) -> Floats:
        """Return the mean over the trace."""
        return np.asarray(self._snr_hz.mean(axis=0))

    def likely_snr_hz(self, clients: Ints, count: int) -> Floats:
        """Return ``count`` quantiles of the trace, [n, count] of clients [n]."""
        middle = (np.arange(count) + 0.5) / count
        # Values that the trace has, not others between them.
        found = np.quantile(self._snr_hz[:, clients], middle, axis=0, method="inverted_cdf")
        return np.asarray(found).T


def uniform_mean(snr_db: tuple[float, float]) -> float:
    """Return the mean of an SNR that is uniform in dB between two values, linear.

    ``(10^(hi/10) - 10^(lo/10)) / (ln10 / 10 (hi - lo))`` (DERIVED), above that of the middle in dB.
    """
    nepers = np.log(10.0) / 10.0 * (snr_db[1] - snr_db[0])
    above = np.expm1(nepers) / nepers if nepers > 0.0 else 1.0
    return float(from_db(snr_db[0]) * above)


def uniform_powers(snr_db: tuple[float, float], count: int) -> Floats:
    """Return ``count`` equally likely SNRs of such a range, over their mean."""
    spread = snr_db[1] - snr_db[0]
    drawn = from_db(snr_db[0] + spread * (np.arange(count) + 0.5) / count)
    return np.asarray(drawn / uniform_mean(snr_db))
