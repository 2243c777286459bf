"""Which keys of a cell's description do not go together, as sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airtune.radio.config import CellConfig


def check_cell(cell: CellConfig) -> None:
    """Raise ValueError with a sentence for the first keys that do not go together."""
    check_places(cell)
    check_sources(cell)
    check_selectivity(cell)
    check_errors(cell)
    check_deadline(cell)
    check_spectrum(cell)


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
    if cell.snr_db is not None and not -50 <= cell.snr_db[0] <= cell.snr_db[1] <= 100:
        raise ValueError("snr_db is a lowest and a highest value, from -50 to 100 dB")
    if cell.trace is not None and cell.ideal:
        raise ValueError("an ideal cell has no trace: leave one of them out")
    if cell.measured and (cell.ideal or stated):
        other = "ideal" if cell.ideal else stated[0]
        raise ValueError(f"links are measured or as {other} says: leave one of them out")


def check_selectivity(cell: CellConfig) -> None:
    """Refuse a delay spread where nothing fades, and one that a resource block is too wide for.

    Also blocks that differ, where nothing makes them differ or nobody sees it.
    """
    if cell.allocation == "best-blocks" and not cell.ideal:
        if cell.delay_spread_ns is None:
            raise ValueError(
                "allocation best-blocks goes by how blocks fade; set delay_spread_ns, or divide by "
                "resource-blocks"
            )
        if cell.csi == "statistical":
            raise ValueError(
                "allocation best-blocks goes by how blocks fade, which csi: statistical does not "
                "know; divide by resource-blocks"
            )
    if cell.delay_spread_ns is None:
        return
    stated = [key for key in ("trace", "snr_db") if getattr(cell, key) is not None]
    if cell.ideal or stated:
        why = "an ideal cell has no fading" if cell.ideal else f"{stated[0]} says what the SNR is"
        raise ValueError(f"{why}; leave delay_spread_ns out")
    if cell.fading not in ("rayleigh", "rician"):
        raise ValueError(
            f"delay_spread_ns is of rayleigh or rician fading; fading {cell.fading} has no paths"
        )
    # Beyond it coefficients within a block correlate by less than 0.71, at its two ends.
    most_ns = 1e9 / (2.0 * math.pi * cell.rate.resource_block_hz)
    if cell.delay_spread_ns > most_ns:
        raise ValueError(
            f"delay_spread_ns: fading is constant in a resource block of "
            f"{cell.rate.resource_block_hz:g} Hz, which it is up to {most_ns:.0f} ns only"
        )


def check_deadline(cell: CellConfig) -> None:
    """Refuse what goes by a deadline where there is none."""
    if cell.deadline_s is not None:
        return
    if cell.allocation == "min-energy":
        raise ValueError(
            "allocation min-energy lowers power as far as the deadline allows; set deadline_s"
        )
    if cell.late == "wait":
        raise ValueError("late: wait is for uploads that miss the deadline; set deadline_s")


def check_errors(cell: CellConfig) -> None:
    """Refuse curves of schemes where no schemes are used."""
    if cell.packet_error == "bler" and cell.rate.law != "mcs":
        raise ValueError(
            "packet_error: bler is that of the modulation and coding scheme in use; set rate.law: "
            "mcs, or give a number or waterfall"
        )


def check_spectrum(cell: CellConfig) -> None:
    """Refuse a division that the rate's law knows nothing of, and less than a resource block."""
    if cell.allocation == "min-energy" and cell.rate.law == "mcs":
        raise ValueError(
            "allocation min-energy knows the least energy of Shannon's law only; leave "
            "rate.law out, or divide by min-max-delay"
        )
    narrowest = min(cell.bandwidth_hz, cell.broadcast_hz)
    if narrowest < cell.rate.resource_block_hz:
        raise ValueError(
            f"a bandwidth of {narrowest:g} Hz is narrower than one resource block "
            f"({cell.rate.resource_block_hz:g} Hz)"
        )
