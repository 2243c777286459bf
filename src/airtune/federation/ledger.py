"""What every message and every round cost: JSON lines, the record that a run is judged by."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from airtune.errors import UserError
from airtune.federation.records import LedgerRow, as_dict

Row = dict[str, Any]
_SUMMED = ("uplink_bits", "downlink_bits", "seconds", "joules")
_MEASURED = (
    "accuracy", "loss", "personal_accuracy", "personal_loss", "personal_global_accuracy",
    "perplexity", "train_loss", "gradient_norm",
)  # fmt: skip
_NESTED = ("scores", "notes")


class Ledger:
    """An append-only file of rows; each has a key ``row`` with its kind.

    Holds nothing that differs between two runs of the same experiment, wall time in particular.
    """

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        """Open ``path``; what lies behind the first ``keep_bytes`` was not committed and goes."""
        path.touch()
        if path.stat().st_size < keep_bytes:
            raise UserError(
                f"'{path}' is shorter than its checkpoint says; start again in another directory."
            )
        os.truncate(path, keep_bytes)
        self._path = path
        self.size = keep_bytes

    def append(self, rows: Iterable[LedgerRow]) -> None:
        """Write rows to disk and wait until they are there."""
        cleaned = (plain(as_dict(row)) for row in rows)
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in cleaned)
        with self._path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self.size += len(text.encode())


def read(path: Path) -> list[Row]:
    """Return a ledger's rows."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def history(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one row per round with its scores, notes and running totals of costs."""
    frame = _frame(rows, "round")
    frame["joules"] = frame["joules"].astype(float)  # not known where links are measured
    for column in _SUMMED:
        frame[f"total_{column}"] = frame[column].cumsum(skipna=False)
    # Ledgers of earlier versions may lack some.
    measured = [name for name in _MEASURED if name in frame]
    frame[measured] = frame[measured].astype(float)
    return frame


def uploads(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one row per client that was asked to upload in a round; notes are columns."""
    return _frame(rows, "upload")


def _frame(rows: Iterable[Row], kind: str) -> pd.DataFrame:
    return pd.DataFrame([_flat(row) for row in rows if row["row"] == kind])


def _flat(row: Row) -> Row:
    """Return a row with its notes and scores among its values."""
    inner = {key: value for name in _NESTED for key, value in row.get(name, {}).items()}
    return {key: value for key, value in row.items() if key not in ("row", *_NESTED)} | inner


def plain(value: Any) -> Any:
    """Return what is to be JSON with null for what that cannot say (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
