"""What can become of an upload, and the colour and letter that stand for it."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class Status(NamedTuple):
    """``letter`` repeats in the cell what ``colour`` says, for readers who cannot tell colours."""

    name: str
    letter: str
    colour: str
    meaning: str


# Okabe and Ito's palette, which differs in lightness too. The usual fate is pale, so that
# losses stand out.
STATUSES = (
    Status("delivered", "", "#b7d7ea", "arrived and was used"),
    Status("outage", "O", "#d55e00", "the link was too weak to carry it"),
    Status("lost", "L", "#1c1c1c", "a packet failed in all its tries"),
    Status("late", "T", "#e69f00", "was not there by the deadline"),
    Status("skipped", "S", "#a6a6a6", "was not scheduled"),
    Status("missed", "M", "#cc79a7", "did not hear the broadcast"),
    Status("diverged", "D", "#7a1f5c", "training left the finite numbers"),
    Status("withheld", "W", "#f0e442", "the client sent nothing"),
    Status("refused", "R", "#0072b2", "the server could not use what arrived"),
)


def meanings(uploads: pd.DataFrame) -> str:
    """Return one line that explains the fates that occurred."""
    seen = set() if uploads.empty else set(uploads["status"])
    lines = [f"{s.name}: {s.meaning}" for s in STATUSES if s.name in seen]
    return "; ".join([*lines, "blank: was not asked"])


def losses(uploads: pd.DataFrame) -> dict[str, int]:
    """Return how many uploads met each fate other than delivery, the frequent ones first."""
    if uploads.empty:
        return {}
    counts = uploads["status"].value_counts().drop("delivered", errors="ignore")
    order = [status.name for status in STATUSES]
    names = sorted(counts.index, key=lambda name: (-counts[name], order.index(name)))
    return {str(name): int(counts[name]) for name in names}
