"""Mean attenuation over distance, with the sight and the shadowing that belong to each model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from airtune.radio.line_of_sight import (
    inh_los_probability,
    los_probability,
    rma_los_probability,
)
from airtune.radio.units import SPEED_OF_LIGHT_M_PER_S, Bools, Floats, Ints

_CLIENT_HEIGHT_M = 1.5
_UMI_HEIGHT_M = 10.0
_UMA_HEIGHT_M = 25.0
_RMA_HEIGHT_M = 35.0
_RMA_STREET_M = 20.0
_RMA_BUILDING_M = 5.0
_INH_HEIGHT_M = 3.0
_INH_CLIENT_HEIGHT_M = 1.0


def log_distance_db(
    distance_m: Floats,
    exponent: float = 3.76,
    reference_db: float = 128.1,
    reference_m: float = 1000.0,
) -> Floats:
    """Return ``reference_db + 10 exponent log10(d / reference_m)`` in dB, distances in m.

    The defaults are the LTE macro cell at 2 GHz, ``128.1 + 37.6 log10(d_km)``.
    """
    # 10 x 3.76 is not the float 37.6; rounded it is, and published figures keep their last digit.
    slope = round(10.0 * exponent, 9)
    return np.asarray(reference_db + slope * np.log10(distance_m / reference_m))


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
    log_slant = np.log10(_slant_m(distance_m, _UMI_HEIGHT_M))
    los = _two_slopes_db(distance_m, log_slant, carrier_ghz, _UMI_HEIGHT_M, 32.4, 21.0, 9.5)
    nlos = 22.4 + 35.3 * log_slant + 21.3 * np.log10(carrier_ghz)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def uma_db(distance_m: Floats, carrier_ghz: float, line_of_sight: Bools) -> Floats:
    """Return the urban-macro loss in dB; horizontal distances in m, base station at 25 m.

    LOS  ``28 + 22 log10 d3 + 20 log10 f``, steeper beyond the breakpoint;
    NLOS ``max(LOS, 13.54 + 39.08 log10 d3 + 20 log10 f)`` for a client at 1.5 m.
    Source: 3GPP TR 38.901 table 7.4.1-1.
    """
    log_slant = np.log10(_slant_m(distance_m, _UMA_HEIGHT_M))
    los = _two_slopes_db(distance_m, log_slant, carrier_ghz, _UMA_HEIGHT_M, 28.0, 22.0, 9.0)
    nlos = 13.54 + 39.08 * log_slant + 20.0 * np.log10(carrier_ghz)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def rma_db(distance_m: Floats, carrier_ghz: float, line_of_sight: Bools) -> Floats:
    """Return the rural-macro loss in dB; horizontal distances in m, base station at 35 m.

    With buildings of ``h`` = 5 m and streets of ``W`` = 20 m, a client at 1.5 m:
    LOS  ``20 log10(40 pi d3 f / 3) + min(0.03 h^1.72, 10) log10 d3 - min(0.044 h^1.72, 14.77)
    + 0.002 d3 log10 h`` up to the breakpoint, and from there on 40 dB per decade;
    NLOS ``max(LOS, 161.04 - 7.1 log10 W + 7.5 log10 h - (24.37 - 3.7 (h/h_BS)^2) log10 h_BS +
    (43.42 - 3.1 log10 h_BS)(log10 d3 - 3) + 20 log10 f - (3.2 log10(11.75 h_UT)^2 - 4.97))``.
    Source: 3GPP TR 38.901 table 7.4.1-1, compared with the source of Sionna 2.2.
    """
    corner = rma_breakpoint_m(carrier_ghz)
    slant = _slant_m(distance_m, _RMA_HEIGHT_M)
    near = _rma_near_db(slant, carrier_ghz)
    # As the table has it, the horizontal breakpoint stands for a slant distance here.
    at_corner = _rma_near_db(np.array(corner), carrier_ghz)
    far = at_corner + 40.0 * np.log10(slant / corner)
    los = np.where(distance_m <= corner, near, far)
    height, building = np.log10(_RMA_HEIGHT_M), _RMA_BUILDING_M / _RMA_HEIGHT_M
    nlos = (
        161.04
        - 7.1 * np.log10(_RMA_STREET_M)
        + 7.5 * np.log10(_RMA_BUILDING_M)
        - (24.37 - 3.7 * building**2) * height
        + (43.42 - 3.1 * height) * (np.log10(slant) - 3.0)
        + 20.0 * np.log10(carrier_ghz)
        - (3.2 * np.log10(11.75 * _CLIENT_HEIGHT_M) ** 2 - 4.97)
    )
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def rma_breakpoint_m(carrier_ghz: float) -> float:
    """Return ``2 pi h_BS h_UT f / c``, where the rural loss and its shadowing change (m)."""
    heights = _RMA_HEIGHT_M * _CLIENT_HEIGHT_M
    return 2e9 * np.pi * heights * carrier_ghz / SPEED_OF_LIGHT_M_PER_S


def inh_db(distance_m: Floats, carrier_ghz: float, line_of_sight: Bools) -> Floats:
    """Return the indoor-office loss in dB; horizontal distances in m, heights of 3 m and 1 m.

    LOS  ``32.4 + 17.3 log10 d3 + 20 log10 f``;
    NLOS ``max(LOS, 17.3 + 38.3 log10 d3 + 24.9 log10 f)``.
    Source: 3GPP TR 38.901 table 7.4.1-1, compared with the source of Sionna 2.2.
    """
    slant = np.log10(np.hypot(distance_m, _INH_HEIGHT_M - _INH_CLIENT_HEIGHT_M))
    los = 32.4 + 17.3 * slant + 20.0 * np.log10(carrier_ghz)
    nlos = 17.3 + 38.3 * slant + 24.9 * np.log10(carrier_ghz)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


# What a client's surroundings are, as an index into a model's spreads and distances.
IN_SIGHT, OUT_OF_SIGHT, INDOORS = range(3)


@dataclass(frozen=True)
class PathLoss:
    """One propagation model: its loss, who is in line of sight, its shadowing.

    Spreads in dB and decorrelation distances in m: in sight, out of sight, indoors; and of sight
    itself. ``far`` is a breakpoint by carrier, and the spread in sight beyond it. A model that
    does not tell who is in sight has no such place, or no other.
    """

    loss_db: Callable[[Floats, float, Bools], Floats]
    los_probability: Callable[[Floats], Floats]
    shadowing_los_db: float
    shadowing_nlos_db: float
    shadowing_indoor_db: float
    decorrelation_m: tuple[float, float, float]
    sight_decorrelation_m: float
    far: tuple[Callable[[float], float], float] | None = None
    tells_sight: bool = True

    def spread_db(self, distance_m: Floats, carrier_ghz: float, where: Ints) -> Floats:
        """Return each client's shadowing spread, ``where`` it is as an index."""
        spreads = (self.shadowing_los_db, self.shadowing_nlos_db, self.shadowing_indoor_db)
        spread = np.array(spreads)[where]
        if self.far is None:
            return spread
        breakpoint_m, beyond_db = self.far
        beyond = (where == IN_SIGHT) & (distance_m > breakpoint_m(carrier_ghz))
        return np.where(beyond, beyond_db, spread)


# Shadowing: TR 38.901 tables 7.4.1-1 and 7.5-6, distances of sight 7.6.3.1-2, all as in Sionna's
# source. 8 dB and 50 m are the custom with the log-distance law.
PATH_LOSS: dict[str, PathLoss] = {
    "log-distance": PathLoss(
        lambda d, f, los: log_distance_db(d), np.zeros_like,
        8.0, 8.0, 8.0, (50.0, 50.0, 50.0), 50.0, tells_sight=False,
    ),
    "free-space": PathLoss(
        lambda d, f, los: free_space_db(d, f), np.ones_like,
        0.0, 0.0, 0.0, (50.0, 50.0, 50.0), 50.0, tells_sight=False,
    ),
    "umi": PathLoss(
        umi_db, lambda d: los_probability(d, 36.0), 4.0, 7.82, 7.0, (10.0, 13.0, 7.0), 50.0
    ),
    "uma": PathLoss(
        uma_db, lambda d: los_probability(d, 63.0), 4.0, 6.0, 7.0, (37.0, 50.0, 7.0), 50.0
    ),
    "rma": PathLoss(
        rma_db, rma_los_probability,
        4.0, 8.0, 8.0, (37.0, 120.0, 120.0), 60.0, far=(rma_breakpoint_m, 6.0),
    ),
    "inh-mixed": PathLoss(
        inh_db, lambda d: inh_los_probability(d, "mixed"), 3.0, 8.03, 8.03, (10.0, 6.0, 6.0), 10.0
    ),
    "inh-open": PathLoss(
        inh_db, lambda d: inh_los_probability(d, "open"), 3.0, 8.03, 8.03, (10.0, 6.0, 6.0), 10.0
    ),
}  # fmt: skip


def _slant_m(distance_m: Floats, base_height_m: float) -> Floats:
    return np.hypot(distance_m, base_height_m - _CLIENT_HEIGHT_M)


def _two_slopes_db(
    distance_m: Floats,
    log_slant: Floats,
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
    fixed = intercept_db + 20.0 * np.log10(carrier_ghz)
    near = fixed + slope * log_slant
    # Squared slant distance of the breakpoint: with this offset both slopes meet there.
    corner = breakpoint_m**2 + (base_height_m - _CLIENT_HEIGHT_M) ** 2
    far = fixed + 40.0 * log_slant - correction * np.log10(corner)
    return np.where(distance_m <= breakpoint_m, near, far)


def _rma_near_db(slant_m: Floats, carrier_ghz: float) -> Floats:
    height = _RMA_BUILDING_M**1.72
    return np.asarray(
        20.0 * np.log10(40.0 * np.pi * slant_m * carrier_ghz / 3.0)
        + min(0.03 * height, 10.0) * np.log10(slant_m)
        - min(0.044 * height, 14.77)
        + 0.002 * np.log10(_RMA_BUILDING_M) * slant_m
    )
