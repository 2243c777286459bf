"""What it cost to reach an accuracy: the fair way to set runs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from airtune.report.view import floats

_SHARE_OF_BEST = 0.95


@dataclass(frozen=True)
class Reached:
    """The round in which a run reached a target, and what it had cost by the end of it."""

    round: int
    total_uplink_bits: float
    total_seconds: float


def default_target(histories: Iterable[pd.DataFrame]) -> float:
    """Return 95 % of the best accuracy that any of the runs reaches, a fraction.

    The last few percent are noise between evaluations; runs that fall short of them by chance
    would never count as arrived. NaN if no run measured accuracy.
    """
    best = [floats(history, "accuracy").max() for history in histories]
    return _SHARE_OF_BEST * max((b for b in best if not math.isnan(b)), default=math.nan)


def to_target(history: pd.DataFrame, target: float) -> Reached | None:
    """Return the first evaluated round whose accuracy is at least ``target``; None without one."""
    arrived = history[floats(history, "accuracy") >= target]
    if arrived.empty:
        return None
    first = arrived.iloc[0]
    return Reached(
        int(first["round"]), float(first["total_uplink_bits"]), float(first["total_seconds"])
    )
