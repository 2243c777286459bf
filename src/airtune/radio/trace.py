"""Links that were measured, or made elsewhere: read from a file, played round by round."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from airtune.errors import UserError
from airtune.radio.rate import RateModel, in_outage, outage_snr_hz, rate_bps, snr_for_rate_hz
from airtune.radio.units import Bools, Floats, from_db

if TYPE_CHECKING:
    import pandas as pd

_VALUES = ("snr_db", "rate_bps")


@dataclass(frozen=True)
class Trace:
    """A file's numbers, ``[rounds, clients]``: ``column`` is ``snr_db`` or ``rate_bps``."""

    path: str
    column: str
    values: Floats

    def snr_hz(self, share_hz: float, model: RateModel) -> Floats:
        """Return P g / (N0 F) in Hz, ``[rounds, clients]``, of clients that have ``share_hz`` each.

        An SNR is that over the share. A rate is what the rate model makes of the share, inverted:
        :func:`airtune.radio.rate.rate_bps` gives it back, and 0 is no link at all. Raises
        ``UserError`` for a rate that no SNR gives, or only one that counts as outage.
        """
        if self.column == "snr_db":
            return from_db(self.values) * share_hz
        snr_hz = snr_for_rate_hz(share_hz, self.values, model)
        highest = float(rate_bps(share_hz, np.inf, model))
        allows = "max_efficiency allows" if model.law == "shannon" else "law mcs allows at best"
        self._refuse(
            np.isinf(snr_hz),
            f"above the {highest:g} bit/s that cell.rate.{allows} in the band divided by the "
            "number of clients",
        )
        # A rate of an SNR just at the line must not fail by rounding.
        low = in_outage(snr_hz * (1.0 + 1e-9), model) & (self.values > 0)
        lowest = float(rate_bps(model.resource_block_hz, outage_snr_hz(model), model))
        self._refuse(
            low,
            f"below the {lowest:g} bit/s at which links count as outage; write 0 for no link, or "
            "make cell.rate.resource_block_hz smaller",
        )
        return np.where(self.values > 0, np.maximum(snr_hz, outage_snr_hz(model)), snr_hz)

    def _refuse(self, wrong: Bools, why: str) -> None:
        """Raise for the first rate that is ``wrong``, ``[rounds, clients]``."""
        if wrong.any():
            round, client = np.argwhere(wrong)[0]
            raise UserError(
                f"cell.trace: '{self.path}' has {self.values[round, client]:g} bit/s for client "
                f"{client} in its round number {round + 1}, {why}."
            )


def read_trace(path: str, clients: int) -> Trace:
    """Read a CSV or Parquet file with columns round, client and one of snr_db, rate_bps.

    Clients count from 0, and those from ``clients`` on are left out. Rounds may start anywhere,
    and follow each other without gaps; rows may come in any order, with blank lines behind the
    last one. Raises ``UserError`` with one
    sentence that names the file and the row where that is not so.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"cell.trace: there is no file '{path}'.")
    return _read(path, file.stat().st_mtime_ns, clients)


@lru_cache(maxsize=4)
def _read(path: str, changed_ns: int, clients: int) -> Trace:
    frame = _frame(path)
    column = _value_column(path, list(frame.columns))
    round, client = (_whole_numbers(path, frame, name) for name in ("round", "client"))
    value = _numbers(path, frame, column)
    if column == "rate_bps":
        _refuse(path, frame, value < 0, column, "not below 0")
    else:
        _refuse(path, frame, np.abs(value) > 200, column, "from -200 to 200")
    if clients - 1 > client.max():
        raise UserError(
            f"cell.trace: '{path}' ends with client {client.max()} (counted from 0), and there "
            f"are {clients} clients; its last row is {_row(path, len(frame) - 1)}."
        )
    rows = np.flatnonzero(client < clients)
    first, rounds = int(round.min()), int(np.ptp(round)) + 1
    place = (round[rows] - first) * clients + client[rows]
    order = np.argsort(place, kind="stable")
    rows, place = rows[order], place[order]
    repeated = np.flatnonzero(place[1:] == place[:-1])
    if repeated.size:
        row = int(rows[repeated[0] + 1])
        raise UserError(
            f"cell.trace: '{path}', row {_row(path, row)}: client {client[row]} has round "
            f"{round[row]} twice."
        )
    if place.size < rounds * clients:
        # Sorted and without repeats: the first place that is not its own index is missing.
        gap = int(np.argmax(np.append(place, -1) != np.arange(place.size + 1)))
        before = f"; row {_row(path, int(rows[gap - 1]))} is the last before it" if gap else ""
        raise UserError(
            f"cell.trace: '{path}' has no row for client {gap % clients} in round "
            f"{first + gap // clients}{before}."
        )
    return Trace(path, column, value[rows].reshape(rounds, clients))


def _frame(path: str) -> pd.DataFrame:
    # Imported here: the radio is otherwise NumPy alone.
    import pandas as pd

    file = Path(path).expanduser()
    kind = file.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UserError(f"cell.trace: '{path}' is neither .csv nor .parquet.")
    try:
        # Blank lines stay in, so that rows are numbered as an editor numbers lines.
        csv = kind == ".csv"
        frame = pd.read_csv(file, skip_blank_lines=False) if csv else pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise UserError(f"cell.trace: '{path}' cannot be read as {kind[1:]}.") from error
    # Where rows have more fields than there are names, the first fields are taken for row names.
    if csv and not isinstance(frame.index, pd.RangeIndex):
        raise UserError(
            f"cell.trace: '{path}' has rows of {frame.shape[1] + frame.index.nlevels} fields, and "
            f"{frame.shape[1]} names in its first row."
        )
    if csv:
        filled = np.flatnonzero(frame.notna().any(axis=1))
        frame = frame.iloc[: int(filled.max(initial=-1)) + 1]
    if frame.empty:
        raise UserError(f"cell.trace: '{path}' has no rows.")
    return frame


def _value_column(path: str, columns: list[str]) -> str:
    given = [name for name in _VALUES if name in columns]
    wrong = [name for name in columns if name not in ("round", "client", *_VALUES)]
    missing = [name for name in ("round", "client") if name not in columns]
    if wrong or missing or len(given) != 1:
        raise UserError(
            f"cell.trace: '{path}' has in its first row the columns {', '.join(map(str, columns))}"
            "; it needs round, client and one of snr_db, rate_bps, and no other."
        )
    return given[0]


def _numbers(path: str, frame: pd.DataFrame, name: str) -> Floats:
    import pandas as pd

    found = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    _refuse(path, frame, ~np.isfinite(found), name, "a number")
    return np.asarray(found)


def _whole_numbers(path: str, frame: pd.DataFrame, name: str) -> np.ndarray:
    found = _numbers(path, frame, name)
    wrong = (found != np.floor(found)) | (found < 0) | (found > 2**31)
    _refuse(path, frame, wrong, name, "a whole number from 0 on")
    return found.astype(np.int64)


def _refuse(path: str, frame: pd.DataFrame, wrong: np.ndarray, name: str, right: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"cell.trace: '{path}', row {_row(path, row)}: {name} is {frame[name].iloc[row]}, and "
            f"must be {right}."
        )


def _row(path: str, index: int) -> int:
    """Return a row as an editor counts it: a CSV file's first line has the names."""
    return index + (2 if path.lower().endswith(".csv") else 1)
