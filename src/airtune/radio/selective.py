"""Small-scale fading that differs from one resource block to the next, and what stands for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.fading import Coefficients, scattered, step, with_specular
from airtune.radio.rate import RateModel, rate_bps, snr_for_rate_hz
from airtune.radio.small_scale import memory
from airtune.radio.taps import block_responses, exponential_taps
from airtune.radio.units import Floats, Ints, from_db

_TOGETHER = 512  # clients whose blocks are in memory at once
_DRAWN = 2000  # bands that stand for all that a client may have


class Selective:
    """Rayleigh or Rician fading of each block, constant in a round, with the memory of flat fading.

    Scattered paths come through a tapped delay line; a fixed path is the same on all blocks. Blocks
    are worked out when asked for and not kept. Where rounds remember each other, the taps are.
    """

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self._config = config
        self._clients = clients
        self._seed = seed
        self._rho = memory(config)
        self._responses = responses(config)
        self._last: dict[int, tuple[int, Coefficients]] = {}

    def powers(self, round: int, k: Floats) -> Iterator[tuple[slice, Floats]]:
        """Yield clients that follow each other and their powers of mean 1, [n, blocks].

        ``k`` are the Rician factors of all, linear (``small_scale.k_factor``).
        """
        for start in range(0, self._clients, _TOGETHER):
            some = slice(start, min(start + _TOGETHER, self._clients))
            yield some, self._powers(round, start, k[some])

    def powers_of(self, clients: Ints, round: int, k: Floats) -> Floats:
        """Return the powers of some clients, [n, blocks]; ``k`` are the factors of all."""
        found = np.empty((clients.size, self._responses.shape[1]))
        starts = clients - clients % _TOGETHER
        for start in np.unique(starts):
            here = np.flatnonzero(starts == start)
            rows = clients[here] - start
            found[here] = self._powers(round, int(start), k[clients[here]], rows)
        return found

    def _powers(
        self, round: int, start: int, k: Floats, rows: Ints | slice = slice(None)
    ) -> Floats:
        scatter = self._scattered(round, start).reshape(-1, len(self._responses))[rows]
        return _power(with_specular(scatter @ self._responses, k[:, None]))

    def _scattered(self, round: int, start: int) -> Coefficients:
        """Return the taps of the clients from number ``start`` on, one client after another."""
        rows = min(_TOGETHER, self._clients - start)

        def draw(at: int) -> np.random.Generator:
            return generator(self._seed, "fading of taps", at, start)

        if self._rho == 0.0:
            return scattered(rows * len(self._responses), draw(round))
        reached, state = self._last.get(start, (round + 1, np.empty(0, dtype=np.complex128)))
        if reached > round:
            reached, state = 0, scattered(rows * len(self._responses), draw(0))
        for later in range(reached + 1, round + 1):
            state = step(state, self._rho, draw(later))
        self._last[start] = (round, state)
        return state


def responses(config: CellConfig) -> Coefficients:
    """Return what the cell's taps do to its blocks, [taps, blocks]; needs ``delay_spread_ns``."""
    assert config.delay_spread_ns is not None
    taps = exponential_taps(config.delay_spread_ns * 1e-9, config.bandwidth_hz)
    return block_responses(taps, config.blocks, config.rate.resource_block_hz)


def effective_power(
    mean_snr_hz: ArrayLike, powers: Floats, share_hz: float, model: RateModel
) -> Floats:
    """Return the power of flat fading that carries what blocks do, [...]; ``powers`` [..., blocks].

    ``log(1 + e c) = mean_b log(1 + p_b c)`` with ``c = mean_snr_hz / (gap share_hz)``

    Mutual information, at the gap of the rate model: equivalent for a share of ``share_hz`` whose
    blocks are spread over the band, where neither cap nor least SNR binds. Between the geometric
    mean of the powers (narrow shares) and the arithmetic one (wide ones), which for Rayleigh
    blocks are 2.5 dB apart. DERIVED. Measured at other shares, cap and least SNR included, for
    -5 to 30 dB at ``share_hz``: mean rates are off by up to 12 % within a factor of 4 of it and
    22 % within 16 over Rayleigh blocks, by 4 % and 7 % over Rician ones of 9 dB. Narrow shares are
    overrated and wide ones underrated; near the cap both are overrated.
    """
    scale = np.asarray(mean_snr_hz, dtype=np.float64) / (from_db(model.gap_db) * share_hz)
    mean = np.log1p(powers * scale[..., None]).mean(-1)
    return np.asarray(np.expm1(mean) / scale)


def flat_snr_hz(snr_hz: Floats, model: RateModel) -> float:
    """Return the flat SNR that carries over own blocks what they do; ``snr_hz`` [blocks] in Hz.

    Full power is divided equally, so that they carry ``sum_b r(F, snr_b / m)``; at the cap, where
    more SNR carries no more, it is that of the worst block.
    """
    width = model.resource_block_hz
    rate = rate_bps(width, snr_hz / snr_hz.size, model).sum()
    carries = float(snr_for_rate_hz(snr_hz.size * width, rate, model))
    return max(carries, float(snr_hz.min()))


def likely_effective_powers(
    config: CellConfig, mean_snr_hz: Floats, k: Floats, share_hz: float, count: int
) -> Floats:
    """Return ``count`` effective powers that are equally likely, [n, count] of clients [n].

    ``k`` are their Rician factors, [n]. Quantiles of bands that are drawn once, so good to some
    percent; over the clients' mean SNRs they are interpolated on a grid.
    """
    across = responses(config)
    scatter = scattered(_DRAWN * len(across), generator(0, "likely taps"))
    coefficients = scatter.reshape(_DRAWN, -1) @ across
    found = np.empty((mean_snr_hz.size, count))
    for factor in np.unique(k):
        these = np.flatnonzero(k == factor)
        powers = _power(with_specular(coefficients, np.asarray(factor)))
        found[these] = _quantiles(np.log(mean_snr_hz[these]), powers, share_hz, count, config.rate)
    return found


def _quantiles(
    level: Floats, powers: Floats, share_hz: float, count: int, model: RateModel
) -> Floats:
    """Return quantiles of effective powers at logarithms of SNRs ``level`` [n], [n, count]."""
    middle = (np.arange(count) + 0.5) / count
    low = np.floor(level.min())
    below: Ints = (level - low).astype(np.int64)
    table = np.array(
        [
            np.quantile(effective_power(np.exp(low + step), powers, share_hz, model), middle)
            for step in range(int(below.max()) + 2)
        ]
    )
    part = (level - low - below)[:, None]
    return np.asarray((1.0 - part) * table[below] + part * table[below + 1])


def _power(coefficients: Coefficients) -> Floats:
    return np.asarray(coefficients.real**2 + coefficients.imag**2)
