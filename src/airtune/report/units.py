"""Quantities as people read them: three digits, SI prefixes in powers of ten."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

Unit = Literal["bit", "s", "J", "Hz"]

MISSING = "–"  # noqa: RUF001 (an en dash is what a table wants)

# Beyond this a column of numbers is easier to read one rung up, whatever its smallest entry.
_WIDEST = 1e5


class Rung(NamedTuple):
    """A unit to print in: ``value / factor`` is the number that stands before ``symbol``."""

    factor: float
    symbol: str


_LADDERS: dict[Unit, list[Rung]] = {
    "bit": [Rung(1e3**i, f"{prefix}bit") for i, prefix in enumerate(["", "k", "M", "G", "T"])],
    "s": [
        Rung(1e-3, "ms"), Rung(1.0, "s"), Rung(60.0, "min"), Rung(3600.0, "h"), Rung(86400.0, "d")
    ],
    "J": [
        Rung(1e3**i, f"{prefix}J") for i, prefix in enumerate(["µ", "m", "", "k", "M", "G"], -2)
    ],
    "Hz": [Rung(1e3**i, f"{prefix}Hz") for i, prefix in enumerate(["", "k", "M", "G"])],
}  # fmt: skip


def known(value: float | None) -> bool:
    """Say whether there is a number to print."""
    return value is not None and math.isfinite(value)


def digits(value: float) -> str:
    """Return ``value`` for a column: three digits, all of them from 1000 on; never scientific."""
    value = _rounded(value)
    if not value:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def rung(value: float, unit: Unit) -> Rung:
    """Return the largest unit of which ``value`` holds at least one."""
    ladder = _LADDERS[unit]
    if not value:
        return next(each for each in ladder if each.factor == 1.0)
    # To three digits, 999 600 bit is 1 Mbit, not 1000 kbit.
    fitting = [each for each in ladder if each.factor <= abs(float(f"{value:.3g}"))]
    return fitting[-1] if fitting else ladder[0]


def common_rung(values: Iterable[float], unit: Unit) -> Rung:
    """Return one unit for a column: the smallest entry's, unless the largest gets too wide."""
    sizes = [abs(value) for value in values if known(value) and value]
    if not sizes:
        return rung(0.0, unit)
    smallest = rung(min(sizes), unit)
    higher = [each for each in _LADDERS[unit] if each.factor >= smallest.factor]
    return next((each for each in higher if max(sizes) / each.factor < _WIDEST), higher[-1])


def quantity(value: float | None, unit: Unit) -> str:
    """Return ``1.23 Mbit``, ``830 J`` or ``20 MHz``."""
    if value is None or not known(value):
        return MISSING
    factor, symbol = rung(value, unit)
    return f"{_rounded(value / factor):.15g} {symbol}"


def duration(seconds: float | None) -> str:
    """Return ``350 ms``, ``4.5 s``, ``3 min 20 s``, ``2.1 h`` or ``3.5 d``."""
    if seconds is None or not known(seconds):
        return MISSING
    if _rounded(seconds) < 60:
        factor, symbol = rung(seconds, "s")
        return f"{_rounded(seconds) / factor:.3g} {symbol}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} d"


def percent(fraction: float | None) -> str:
    """Return ``71.2 %``."""
    return f"{100 * fraction:.1f} %" if fraction is not None and known(fraction) else MISSING


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))
