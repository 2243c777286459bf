"""Claims of a benchmark: what was aimed at, what was measured, whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Claim = dict[str, Any]


class Claims:
    """Collects the claims that the rows of one command decide."""

    def __init__(self, command: str, digits: int = 4) -> None:
        self.found: list[Claim] = []
        self._command, self._digits = command, digits

    def add(
        self, name: str, what: str, target: str, values: Sequence[float], holds: bool | None
    ) -> None:
        """Add a claim; ``holds`` is None where nothing is asked of the values."""
        measured = [round(value, self._digits) for value in values]
        self.found.append(
            {"id": name, "what": what, "target": target, "measured": measured, "holds": holds,
             "command": self._command}
        )  # fmt: skip


def table(claims: Sequence[Claim], form: str = ".4g") -> list[str]:
    """Return claims as the lines of a table."""
    lines = ["| id | what | target | measured | holds |", "|---|---|---|---|---|"]
    for claim in claims:
        holds = {True: "yes", False: "**no**", None: ""}[claim["holds"]]
        measured = ", ".join(format(value, form) for value in claim["measured"])
        cells = claim["id"], claim["what"], claim["target"], measured, holds
        lines.append(f"| {' | '.join(cells)} |")
    return lines
