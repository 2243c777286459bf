"""Cells and devices by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airtune.errors import nearest
from airtune.radio.compute import DEVICES

# A preset lists what differs from CellConfig's defaults, which are the street-canyon cell.
# Models: TR 38.901. Radii and powers of the first three: the usual range of single-cell papers
# (DERIVED). Everybody is outdoors but in the office, and the office's clients are all in it.
PRESETS: dict[str, dict[str, Any]] = {
    "urban-micro": {},
    "urban-macro": {
        "path_loss": "uma",
        "radius_m": 500.0,
        "min_distance_m": 35.0,
        "base_station_power_dbm": 46.0,
    },
    "legacy-macro": {
        "path_loss": "log-distance",
        "carrier_ghz": 2.0,
        "fading": "rayleigh",
        "packet_error": 0.0,
        "radius_m": 500.0,
        "min_distance_m": 35.0,
        "base_station_power_dbm": 46.0,
    },
    # TR 38.901 table 7.2-3: 35 m at least, sites 1732 m apart, so that the corners of a site's
    # hexagon are 1732 m / sqrt(3) away (DERIVED); K of table 7.5-6. Carrier, band and power:
    # configuration A of ITU-R M.2412's rural test, 10 MHz each way. FOUND where other simulators
    # quote these tables, K RECALLED.
    "rural-macro": {
        "path_loss": "rma",
        "carrier_ghz": 0.7,
        "bandwidth_hz": 10e6,
        "layout": "hexagon",
        "radius_m": 1000.0,
        "min_distance_m": 35.0,
        "rician_k_db": 7.0,
        "base_station_power_dbm": 46.0,
    },
    # TR 38.901 table 7.2-2: a hall of 120 m x 50 m with 12 base stations 20 m apart at its ceiling;
    # the disc has the area of one of them, 500 m^2 (DERIVED). The table has no smallest distance;
    # 1 m is ours. K of table 7.5-6. Carrier and power: configuration A of M.2412's indoor hotspot.
    # FOUND and RECALLED as above. A mixed office, which has walls, not an open one: ours.
    "indoor-office": {
        "path_loss": "inh-mixed",
        "carrier_ghz": 4.0,
        "radius_m": 12.6,
        "min_distance_m": 1.0,
        "rician_k_db": 7.0,
        "base_station_power_dbm": 24.0,
    },
    "ideal": {"ideal": True},
}


def resolve_cell(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's keys with its preset's values filled in; explicit keys win.

    Raises ``ValueError`` naming the nearest preset if there is none of that name.
    """
    given = {"preset": value} if isinstance(value, str) else dict(value)
    preset = given.get("preset")
    if preset is None:
        return given
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"no cell preset '{preset}'; {nearest(str(preset), PRESETS)}")
    return {**PRESETS[preset], **given}


def resolve_device(item: Any) -> Any:
    """Return the profile of a device's name; anything else as it is.

    Raises ``ValueError`` naming the nearest device if there is none of that name.
    """
    if not isinstance(item, str):
        return item
    if item not in DEVICES:
        raise ValueError(f"no device '{item}'; {nearest(item, DEVICES)}")
    return DEVICES[item]
