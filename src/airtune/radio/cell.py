"""A cell through time: the state of every link in every round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.keyed import generator
from airtune.radio.config import CellConfig
from airtune.radio.fading import (
    Coefficients,
    doppler_hz,
    jakes_correlation,
    power_quantiles,
    scattered,
    shadowing_db,
    step,
    with_specular,
)
from airtune.radio.geometry import place_in_disc
from airtune.radio.path_loss import PATH_LOSS
from airtune.radio.units import Bools, Floats, Ints, from_db

# Below this the powers of two rounds correlate by less than 0.3 %: independent for our purpose,
# and then any round can be drawn without replaying those before it.
_FORGOTTEN = 0.05


@dataclass(frozen=True)
class Links:
    """The links of the whole population in one round; every array is ``[clients]``.

    ``mean_gain`` has path loss and shadowing, ``gain`` the fading as well (both linear). The
    ``snr_hz`` fields are P g / (N0 F) in Hz: ``snr_hz`` as the uplink is, ``mean_snr_hz`` averaged
    over fading, ``planned_snr_hz`` as the server believes it, ``downlink_snr_hz`` of the broadcast.
    """

    round: int
    distance_m: Floats
    line_of_sight: Bools
    mean_gain: Floats
    gain: Floats
    snr_hz: Floats
    mean_snr_hz: Floats
    planned_snr_hz: Floats
    downlink_snr_hz: Floats

    def __len__(self) -> int:
        return self.distance_m.size


class Cell:
    """One base station and ``clients`` clients that stay where they are.

    Placement, line of sight and shadowing last for the run; fading moves on from round to round
    as an autoregression. Uplink and downlink share one gain (time-division reciprocity).
    """

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self.config = config
        self.seed = seed
        model = PATH_LOSS[config.path_loss]
        self.distance_m = place_in_disc(
            clients, config.radius_m, config.min_distance_m, generator(seed, "placement")
        )
        chance = generator(seed, "line of sight").random(clients)
        self.line_of_sight = chance < model.los_probability(self.distance_m)
        own = np.where(self.line_of_sight, model.shadowing_los_db, model.shadowing_nlos_db)
        sigma = own if config.shadowing_db is None else np.full(clients, config.shadowing_db)
        loss_db = model.loss_db(self.distance_m, config.carrier_ghz, self.line_of_sight)
        self.mean_gain = from_db(-loss_db - shadowing_db(sigma, generator(seed, "shadowing")))
        rho = jakes_correlation(
            doppler_hz(config.speed_kmh, config.carrier_ghz), config.round_interval_s
        )
        self._rho = rho if rho > _FORGOTTEN else 0.0
        self._last: tuple[int, Coefficients] | None = None

    def links(self, round: int) -> Links:
        """Return the links of a round: a function of (config, clients, seed, round) alone."""
        config = self.config
        if config.ideal:
            return self._ideal(round)
        per_gain = config.power_w / config.noise_w_per_hz
        mean_gain, gain = self.mean_gain, self.mean_gain * self._fading_power(round)
        if config.snr_db is not None:
            share_hz = config.bandwidth_hz / len(mean_gain)
            drawn = generator(self.seed, "snr", round).uniform(*config.snr_db, len(mean_gain))
            gain = from_db(drawn) * share_hz / per_gain
            middle = 0.5 * (config.snr_db[0] + config.snr_db[1])
            mean_gain = np.full_like(gain, from_db(middle) * share_hz / per_gain)
        mean_snr_hz = per_gain * mean_gain
        snr_hz = per_gain * gain
        margin = float(from_db(-config.fade_margin_db))
        return Links(
            round=round,
            distance_m=self.distance_m,
            line_of_sight=self.line_of_sight,
            mean_gain=mean_gain,
            gain=gain,
            snr_hz=snr_hz,
            mean_snr_hz=mean_snr_hz,
            planned_snr_hz=snr_hz if config.csi == "perfect" else margin * mean_snr_hz,
            downlink_snr_hz=config.base_station_power_w / config.client_noise_w_per_hz * gain,
        )

    def _ideal(self, round: int) -> Links:
        one = np.ones_like(self.distance_m)
        perfect = np.full_like(one, np.inf)
        return Links(round, self.distance_m, one > 0, one, one, perfect, perfect, perfect, perfect)

    def _fading_power(self, round: int) -> Floats:
        if self.config.fading == "none":
            return np.ones_like(self.mean_gain)
        coefficient = self._scattered(round)
        if self.config.fading == "rician":
            coefficient = with_specular(coefficient, _k_factor(self.config, self.line_of_sight))
        return np.asarray(coefficient.real**2 + coefficient.imag**2)

    def _scattered(self, round: int) -> Coefficients:
        clients = self.mean_gain.size
        if self._rho == 0.0:
            return scattered(clients, generator(self.seed, "fading", round))
        if self._last is not None and self._last[0] <= round:
            reached, state = self._last
        else:
            reached, state = 0, scattered(clients, generator(self.seed, "fading", 0))
        for later in range(reached + 1, round + 1):
            state = step(state, self._rho, generator(self.seed, "fading", later))
        self._last = (round, state)
        return state


def likely_snr_hz(config: CellConfig, links: Links, clients: Ints, count: int) -> Floats:
    """Return ``count`` equally likely values of P g / (N0 F) in Hz, [n, count] of clients [n].

    Over fading, or over the range of ``snr_db``: what a link is in the long run.
    """
    if config.snr_db is not None:
        spread = config.snr_db[1] - config.snr_db[0]
        powers = from_db(spread * ((np.arange(count) + 0.5) / count - 0.5))
    elif config.ideal or config.fading == "none":
        powers = np.ones(count)
    else:
        powers = power_quantiles(_k_factor(config, links.line_of_sight[clients]), count)
    return np.asarray(links.mean_snr_hz[clients, None] * powers)


def _k_factor(config: CellConfig, line_of_sight: Bools) -> Floats:
    """Return each client's Rician K, linear; 0 is Rayleigh."""
    if config.fading == "rayleigh":
        return np.zeros(line_of_sight.shape)
    # Only TR 38.901 tells who is in sight; with the other models every client has a path.
    seen = line_of_sight | (config.path_loss not in ("umi", "uma"))
    return np.where(seen, from_db(config.rician_k_db), 0.0)
