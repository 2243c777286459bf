"""What varies around the mean attenuation: shadowing, small-scale fading, its memory."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import gammainccinv, gammaincinv, j0
from scipy.stats import ncx2

from airtune.radio.units import SPEED_OF_LIGHT_M_PER_S, Floats

Coefficients = NDArray[np.complex128]

# Rayleigh powers beyond these have probabilities below 1e-12.
_POWERS = (1e-12, 100.0)


def shadowing_db(sigma_db: Floats, rng: np.random.Generator) -> Floats:
    """Return log-normal shadowing, in dB a normal draw of spread ``sigma_db`` per client."""
    return np.asarray(sigma_db * rng.standard_normal(sigma_db.shape))


def scattered(count: int, rng: np.random.Generator) -> Coefficients:
    """Return ``count`` draws of CN(0, 1): Rayleigh coefficients of unit mean power."""
    return np.sqrt(0.5) * rng.standard_normal(2 * count).view(np.complex128)


def with_specular(scatter: Coefficients, k_factor: Floats) -> Coefficients:
    """Return Rician coefficients ``sqrt(K/(K+1)) + sqrt(1/(K+1)) s`` of unit mean power.

    ``k_factor`` is linear, 0 being Rayleigh. The fixed path gets phase zero: turning it would
    turn ``s``, whose law is the same for every phase.
    """
    return np.asarray(np.sqrt(k_factor / (k_factor + 1.0)) + scatter / np.sqrt(k_factor + 1.0))


def doppler_hz(speed_kmh: float, carrier_ghz: float) -> float:
    """Return the largest Doppler shift ``v f / c`` in Hz."""
    return speed_kmh / 3.6 * carrier_ghz * 1e9 / SPEED_OF_LIGHT_M_PER_S


def jakes_correlation(doppler_hz: float, interval_s: float) -> float:
    """Return ``J0(2 pi f_D dt)`` clipped to [0, 1): a first-order recursion has no other."""
    value = float(j0(2.0 * np.pi * doppler_hz * interval_s))
    return float(np.clip(value, 0.0, np.nextafter(1.0, 0.0)))


def step(scatter: Coefficients, rho: float, rng: np.random.Generator) -> Coefficients:
    """Return the next state ``rho s + sqrt(1 - rho^2) w`` with ``w`` from CN(0, 1)."""
    return rho * scatter + np.sqrt(1.0 - rho**2) * scattered(scatter.size, rng)


def power_quantiles(k_factor: Floats, count: int) -> Floats:
    """Return ``count`` powers of fading that are equally likely, for each Rician K, [..., count].

    Midpoints of the distribution of ``|h|^2``, of mean 1: exponential for K = 0, else a noncentral
    chi-squared with two degrees of freedom.
    """
    middle = (np.arange(count) + 0.5) / count
    k = np.asarray(k_factor, dtype=np.float64)[..., None]
    specular = ncx2.ppf(middle, 2, 2.0 * np.maximum(k, 1e-9)) / (2.0 * (1.0 + k))
    return np.asarray(np.where(k > 0.0, specular, -np.log1p(-middle)))


def nakagami_power(rayleigh_power: Floats, m: float) -> Floats:
    """Return powers of Nakagami-m fading, Gamma(m, 1/m) of mean 1, made of exponential ones.

    ``Q(m, m g) = exp(-p)`` with ``Q`` the regularised upper incomplete gamma function: the same
    quantile of another law (RECALLED: inverse transform, Beaulieu and Cheng 2005). Coefficients
    that remember by Jakes' correlation so give powers that remember, of the same rank correlation;
    each round has Nakagami's law exactly, and m = 1 gives ``p`` back. How two rounds go together
    is ours: measurements fix ``m``, not that.
    """
    curve = _nakagami_curve(m)
    return np.asarray(np.exp(curve(np.log(np.clip(rayleigh_power, *_POWERS)))))


def nakagami_quantiles(m: float, count: int) -> Floats:
    """Return ``count`` equally likely powers of Nakagami-m fading: midpoints of Gamma(m, 1/m)."""
    return np.asarray(gammaincinv(m, (np.arange(count) + 0.5) / count) / m)


@lru_cache(maxsize=16)
def _nakagami_curve(m: float) -> CubicSpline:
    """Return the logarithm of the power over that of the Rayleigh power, within 1e-10.

    Both are smooth, and the exact inverse would take a microsecond for each client and round.
    """
    log_power = np.linspace(np.log(_POWERS[0]), np.log(_POWERS[1]), 2000)
    power = np.exp(log_power)
    # Each tail from its own side, where its probability has all digits.
    low, high = gammaincinv(m, -np.expm1(-power)), gammainccinv(m, np.exp(-power))
    return CubicSpline(log_power, np.log(np.where(power < 0.5, low, high) / m))
