"""Mean attenuation over distance, with the shadowing spread that belongs to each model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from airtune.radio.units import SPEED_OF_LIGHT_M_PER_S, Bools, Floats

_CLIENT_HEIGHT_M = 1.5
_UMI_HEIGHT_M = 10.0
_UMA_HEIGHT_M = 25.0


def log_distance_db(distance_m: Floats) -> Floats:
    """Return ``128.1 + 37.6 log10(d_km)`` in dB: LTE macro cell at 2 GHz, distances in m."""
    return np.asarray(128.1 + 37.6 * np.log10(distance_m / 1000.0))


def free_space_db(distance_m: Floats, carrier_ghz: float) -> Floats:
    """Return ``20 log10(4 pi d f / c)`` in dB, distances in m."""
    return np.asarray(
        20.0 * np.log10(4e9 * np.pi * distance_m * carrier_ghz / SPEED_OF_LIGHT_M_PER_S)
    )


def umi_db(distance_m: Floats, carrier_ghz: float, line_of_sight: Bools) -> Floats:
    """Return the street-canyon loss in dB; horizontal distances in m, base station at 10 m.

    LOS  ``32.4 + 21 log10 d3 + 20 log10 f``, steeper beyond the breakpoint;
    NLOS ``max(LOS, 22.4 + 35.3 log10 d3 + 21.3 log10 f)`` for a client at 1.5 m.
    Source: 3GPP TR 38.901 table 7.4.1-1.
    """
    los = _two_slopes_db(distance_m, carrier_ghz, _UMI_HEIGHT_M, 32.4, 21.0, 9.5)
    slant = _slant_m(distance_m, _UMI_HEIGHT_M)
    nlos = 22.4 + 35.3 * np.log10(slant) + 21.3 * np.log10(carrier_ghz)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def uma_db(distance_m: Floats, carrier_ghz: float, line_of_sight: Bools) -> Floats:
    """Return the urban-macro loss in dB; horizontal distances in m, base station at 25 m.

    LOS  ``28 + 22 log10 d3 + 20 log10 f``, steeper beyond the breakpoint;
    NLOS ``max(LOS, 13.54 + 39.08 log10 d3 + 20 log10 f)`` for a client at 1.5 m.
    Source: 3GPP TR 38.901 table 7.4.1-1.
    """
    los = _two_slopes_db(distance_m, carrier_ghz, _UMA_HEIGHT_M, 28.0, 22.0, 9.0)
    slant = _slant_m(distance_m, _UMA_HEIGHT_M)
    nlos = 13.54 + 39.08 * np.log10(slant) + 20.0 * np.log10(carrier_ghz)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def los_probability(distance_m: Floats, decay_m: float) -> Floats:
    """Return ``18/d + exp(-d/decay) (1 - 18/d)``, and 1 up to 18 m.

    ``decay_m`` is 36 for UMi and 63 for UMa. Source: 3GPP TR 38.901 table 7.4.2-1.
    """
    near = 18.0 / np.maximum(distance_m, 18.0)
    return np.asarray(near + np.exp(-distance_m / decay_m) * (1.0 - near))


@dataclass(frozen=True)
class PathLoss:
    """One propagation model: its loss, who is in line of sight, its shadowing spread in dB."""

    loss_db: Callable[[Floats, float, Bools], Floats]
    los_probability: Callable[[Floats], Floats]
    shadowing_los_db: float
    shadowing_nlos_db: float


# Shadowing spreads: TR 38.901 table 7.4.1-1; 8 dB is the custom with the log-distance law.
PATH_LOSS: dict[str, PathLoss] = {
    "log-distance": PathLoss(lambda d, f, los: log_distance_db(d), np.zeros_like, 8.0, 8.0),
    "free-space": PathLoss(lambda d, f, los: free_space_db(d, f), np.ones_like, 0.0, 0.0),
    "umi": PathLoss(umi_db, lambda d: los_probability(d, 36.0), 4.0, 7.82),
    "uma": PathLoss(uma_db, lambda d: los_probability(d, 63.0), 4.0, 6.0),
}


def _slant_m(distance_m: Floats, base_height_m: float) -> Floats:
    return np.hypot(distance_m, base_height_m - _CLIENT_HEIGHT_M)


def _two_slopes_db(
    distance_m: Floats,
    carrier_ghz: float,
    base_height_m: float,
    intercept_db: float,
    slope: float,
    correction: float,
) -> Floats:
    # Effective heights are one metre lower: the environment height of UMi, and of UMa at 1.5 m.
    breakpoint_m = (
        4e9 * (base_height_m - 1.0) * (_CLIENT_HEIGHT_M - 1.0) * carrier_ghz
    ) / SPEED_OF_LIGHT_M_PER_S
    slant = np.log10(_slant_m(distance_m, base_height_m))
    fixed = intercept_db + 20.0 * np.log10(carrier_ghz)
    near = fixed + slope * slant
    # Squared slant distance of the breakpoint: with this offset both slopes meet there.
    corner = breakpoint_m**2 + (base_height_m - _CLIENT_HEIGHT_M) ** 2
    far = fixed + 40.0 * slant - correction * np.log10(corner)
    return np.where(distance_m <= breakpoint_m, near, far)
