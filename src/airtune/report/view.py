"""A run as the reports see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class RunView:
    """One run: what happened in each round and to each upload, its totals, its description.

    ``history`` has one row per round, round 0 being the untrained model at no cost; measures are
    NaN where nobody evaluated. ``uploads`` has one row per client asked to upload in a round;
    there NaN grants are unlimited and an ideal cell has no SNR. ``experiment`` is YAML.
    """

    name: str
    history: pd.DataFrame
    uploads: pd.DataFrame
    summary: dict[str, Any]
    experiment: str


def floats(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """Return a column as floats, NaN for JSON's null; all NaN if the run never wrote it."""
    if column not in frame:
        return pd.Series(float("nan"), index=frame.index, dtype=float)
    return pd.to_numeric(frame[column]).astype(float)
