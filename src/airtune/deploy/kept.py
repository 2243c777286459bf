"""What a device keeps for itself in small files: its name, and how far it heard a run."""

from __future__ import annotations

import secrets
from pathlib import Path


def lasting_name(path: Path) -> str:
    """Return the name in a file, made at random the first time."""
    if not path.exists():
        path.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def last_heard(path: Path) -> int:
    """Return the largest number of a run's letters that was heard."""
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def is_new(path: Path, sequence: int) -> bool:
    """Return whether a run's letter comes after all that were heard, and note that it did."""
    if sequence <= last_heard(path):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(str(sequence), encoding="utf-8")
    temporary.replace(path)
    return True
