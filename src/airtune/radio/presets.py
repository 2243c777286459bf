"""Cells and devices by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airtune.errors import nearest
from airtune.radio.compute import DEVICES

# A preset lists what differs from CellConfig's defaults, which are the street-canyon cell.
# Models: TR 38.901. Radii and powers: the usual range of single-cell papers (DERIVED).
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
