"""Block error rates of 5G NR's schemes over SNR and size: a table that is made once.

NVIDIA Sionna's link-level simulations of the uplink (FOUND: Sionna 2.2, PUSCH table 1, additive
white Gaussian noise), as its ``PHYAbstraction`` interpolates them. Making the table needs the
extra ``sionna``; it lies in the user's cache from then on, and reading it needs NumPy alone.

What the table is worth: the simulations are 1.8 dB apart and exact nowhere between; sizes end at
2,000 bits, and larger code blocks, whose curves are steeper, are taken as that large. There are no
curves for schemes 0 to 2, which are never decoded here.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from airtune.errors import UserError
from airtune.radio.units import Floats, Ints

VERSION = 1  # part of the file's name: raise it when the table's meaning or making changes

SCHEMES = 28
# dB and bits; below the first SNR nothing is decoded.
SNR_DB: Floats = np.round(np.arange(-50, 401) * 0.1, 1)
BLOCK_BITS = np.arange(24, 2025, 100)
_SHAPE = (SCHEMES, BLOCK_BITS.size, SNR_DB.size)

# FOUND: TS 38.212 clause 5.2.2, base graph 1; a longer packet is cut into equal code blocks.
LARGEST_BLOCK_BITS = 8448
_SURE = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class Curves:
    """Error rates of packets of one size: ``rates`` is [schemes, SNRs], falling over SNR."""

    rates: Floats

    def error(self, scheme: Ints | int, snr: ArrayLike) -> Floats:
        """Return the error rate of packets sent with MCS ``scheme`` at a linear SNR.

        Linear in dB between the table's entries, which are 0.1 dB apart; arguments broadcast.
        """
        snr = np.asarray(snr, dtype=np.float64)
        with np.errstate(divide="ignore"):
            place = (10.0 * np.log10(snr) - SNR_DB[0]) / 0.1
        inside = np.clip(place, 0.0, SNR_DB.size - 1.0)
        left = np.minimum(inside.astype(np.int64), SNR_DB.size - 2)
        below, above = self.rates[scheme, left], self.rates[scheme, left + 1]
        rate = below + (above - below) * (inside - left)
        return np.asarray(np.where(place >= 0.0, rate, 1.0))


def bler_curves(packet_bits: int) -> Curves:
    """Return the curves for packets of ``packet_bits`` bits, making the table if there is none.

    ``q = 1 - (1 - BLER)^C`` of the C equal code blocks that NR cuts a packet into; their size is
    that of the table next to it. Raises ``UserError`` with what to install where no table can be
    had.
    """
    return _curves(str(table_file()), packet_bits)


def table_file() -> Path:
    """Return where the table lies in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "airtune" / f"bler-pusch-table1-{VERSION}.npz"


def write_table(file: Path, error: ArrayLike, source: str) -> None:
    """Write ``error`` [schemes, sizes, SNRs] in one step; ``source`` says what made it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=file.parent, prefix="bler-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            rates = np.asarray(error, dtype=np.float32)
            np.savez_compressed(stream, error=rates, source=np.array(source))
        Path(scratch).replace(file)
    finally:
        Path(scratch).unlink(missing_ok=True)


def read_table(file: Path) -> Floats | None:
    """Return the table of a file; None if it is damaged or not such a table."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            error = np.asarray(stored["error"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if error.shape != _SHAPE or not ((error >= 0.0) & (error <= 1.0)).all():
        return None
    return error if (np.diff(error) <= 0.0).all() else None


@lru_cache(maxsize=8)
def _curves(file: str, packet_bits: int) -> Curves:
    blocks = -(-packet_bits // LARGEST_BLOCK_BITS)
    size = int(np.argmin(np.abs(BLOCK_BITS - packet_bits / blocks)))
    error = _table(file)[:, size]
    if blocks == 1:
        return Curves(error)
    return Curves(-np.expm1(blocks * np.log1p(-np.minimum(error, _SURE))))


@lru_cache(maxsize=2)
def _table(path: str) -> Floats:
    file = Path(path)
    found = read_table(file) if file.exists() else None
    return _made(file) if found is None else found


def _made(file: Path) -> Floats:
    # Imported here: all who read a table that is there do without Sionna, which brings torch.
    try:
        from airtune.radio.bler_making import simulated
    except ImportError as error:
        lies = f"'{file}' is damaged, and making it anew" if file.exists() else "bler"
        raise UserError(
            f"cell.packet_error: {lies} needs Sionna, which has simulated the error rates; run pip "
            "install 'airtune[sionna]', or give a number or waterfall."
        ) from error
    rates, source = simulated()
    try:
        write_table(file, rates, source)
    except OSError as error:
        raise UserError(
            f"cell.packet_error: the table of block error rates cannot be written to '{file}' "
            f"({error.strerror}); set XDG_CACHE_HOME to a folder that can be."
        ) from error
    # As the file has them, so that who makes the table and who reads it see the same.
    return rates.astype(np.float32).astype(np.float64)
