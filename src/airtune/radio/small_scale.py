"""Small-scale fading of a cell's links through time."""

from __future__ import annotations

import numpy as np

from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.fading import (
    Coefficients,
    doppler_hz,
    jakes_correlation,
    nakagami_power,
    nakagami_quantiles,
    power_quantiles,
    scattered,
    step,
    with_specular,
)
from airtune.radio.path_loss import PATH_LOSS
from airtune.radio.units import Bools, Floats, from_db

# Below this the powers of two rounds correlate by less than 0.3 %: independent for our purpose,
# and then any round can be drawn without replaying those before it.
_FORGOTTEN = 0.05


class SmallScale:
    """Fading that is constant in a round and moves on as an autoregression from round to round."""

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self._config = config
        self._clients = clients
        self._seed = seed
        self._rho = memory(config)
        self._last: tuple[int, Coefficients] | None = None

    def power(self, round: int, line_of_sight: Bools, indoors: Bools) -> Floats:
        """Return the powers ``|h|^2``, of mean 1, ``[clients]``, in a round."""
        config = self._config
        if config.fading == "none":
            return np.ones(self._clients)
        coefficient = self._scattered(round)
        if config.fading == "rician":
            coefficient = with_specular(coefficient, k_factor(config, line_of_sight, indoors))
        power = np.asarray(coefficient.real**2 + coefficient.imag**2)
        return nakagami_power(power, config.nakagami_m) if config.fading == "nakagami" else power

    def _scattered(self, round: int) -> Coefficients:
        if self._rho == 0.0:
            return scattered(self._clients, generator(self._seed, "fading", round))
        if self._last is not None and self._last[0] <= round:
            reached, state = self._last
        else:
            reached, state = 0, scattered(self._clients, generator(self._seed, "fading", 0))
        for later in range(reached + 1, round + 1):
            state = step(state, self._rho, generator(self._seed, "fading", later))
        self._last = (round, state)
        return state


def memory(config: CellConfig) -> float:
    """Return the correlation of coefficients from a round to the next, 0 where it is negligible."""
    rho = jakes_correlation(
        doppler_hz(config.speed_kmh, config.carrier_ghz), config.round_interval_s
    )
    return rho if rho > _FORGOTTEN else 0.0


def likely_powers(config: CellConfig, line_of_sight: Bools, indoors: Bools, count: int) -> Floats:
    """Return ``count`` equally likely powers of fading, [count] or [n, count] for clients [n]."""
    if config.fading == "none":
        return np.ones(count)
    if config.fading == "nakagami":
        return nakagami_quantiles(config.nakagami_m, count)
    return power_quantiles(k_factor(config, line_of_sight, indoors), count)


def k_factor(config: CellConfig, line_of_sight: Bools, indoors: Bools) -> Floats:
    """Return each client's Rician K, linear; 0 is Rayleigh."""
    if config.fading == "rayleigh":
        return np.zeros(line_of_sight.shape)
    # Only TR 38.901 tells who is in sight; with the other models every client outdoors has a path.
    seen = line_of_sight | ((not PATH_LOSS[config.path_loss].tells_sight) & ~indoors)
    return np.where(seen, from_db(config.rician_k_db), 0.0)
