"""Which keys of a cell's description do not go together, as sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airtune.radio.config import CellConfig


def check_places(cell: CellConfig) -> None:
    """Refuse layouts without room or without positions, and walks that go nowhere."""
    if cell.layout != "fixed" and cell.min_distance_m >= cell.radius_m:
        raise ValueError(
            f"min_distance_m ({cell.min_distance_m:g}) must be below radius_m ({cell.radius_m:g})"
        )
    sides_m = math.sqrt(0.75) * cell.radius_m
    if cell.layout == "hexagon" and cell.min_distance_m >= sides_m:
        raise ValueError(
            f"min_distance_m ({cell.min_distance_m:g}) must be below {sides_m:g} m, where the "
            "sides of the hexagon are"
        )
    if (cell.layout == "fixed") != (cell.positions_m is not None):
        raise ValueError("positions_m goes with layout: fixed, which needs an [x, y] per client")
    for client, point in enumerate(cell.positions_m or ()):
        if math.hypot(*point) < cell.min_distance_m:
            raise ValueError(
                f"positions_m: client {client} is {math.hypot(*point):g} m from the base station, "
                f"nearer than min_distance_m ({cell.min_distance_m:g})"
            )
    if cell.mobility == "none":
        return
    if cell.layout == "fixed":
        raise ValueError("mobility needs an area: layout disc or hexagon, not fixed")
    if cell.speed_kmh == 0:
        raise ValueError("mobility needs a speed_kmh above 0")


def check_sources(cell: CellConfig) -> None:
    """Refuse two sources of one quantity: nobody could tell which of them holds."""
    if cell.indoor_fraction > 0 and cell.path_loss.startswith("inh"):
        raise ValueError(
            f"indoor_fraction is of outdoor cells; clients of {cell.path_loss} are all indoors"
        )
    stated = [key for key in ("snr_db", "trace") if getattr(cell, key) is not None]
    if len(stated) == 2:
        raise ValueError("give snr_db or trace, not both: each says what the SNR is")
    if stated and cell.noise_rise_db > 0:
        raise ValueError(
            f"{stated[0]} is the SNR as it is, interference included; leave noise_rise_db at 0"
        )
    if cell.trace is not None and cell.ideal:
        raise ValueError("an ideal cell has no trace: leave one of them out")


def check_errors(cell: CellConfig) -> None:
    """Refuse curves of schemes where no schemes are used."""
    if cell.packet_error == "bler" and cell.rate.law != "mcs":
        raise ValueError(
            "packet_error: bler is that of the modulation and coding scheme in use; set rate.law: "
            "mcs, or give a number or waterfall"
        )
