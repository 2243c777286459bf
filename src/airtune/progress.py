"""What a run shows while it runs: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airtune.federation.records import RoundRow


def score(totals: RoundRow) -> str:
    """Return how good an evaluated round's models are, the method's own measures at last."""
    parts = []
    if totals.perplexity is not None and not math.isnan(totals.perplexity):
        parts.append(f"perplexity {totals.perplexity:.2f}")
    elif totals.accuracy is not None and not math.isnan(totals.accuracy):
        parts.append(f"accuracy {totals.accuracy:.3f}")
    own = [
        f"{name.removeprefix('personal_').replace('_', ' ')} {value:.3f}"
        for name, value in totals.scores.items()
        if name.startswith("personal_")
    ]
    if own:
        parts.append(f"clients: {', '.join(own)}")
    return " | ".join(parts)


class RunProgress:
    """Call it with every round; the totals are those of this process, a resumed part excluded."""

    def __init__(
        self, console: Console, rounds: int, quiet: bool = False, measured: bool = False
    ) -> None:
        """``measured``: seconds are real ones, and joules not known."""
        self._console, self._rounds, self._quiet = console, rounds, quiet
        self._measured = measured
        self._bits = self._seconds = self._joules = 0.0
        self._score, self._scored = "", 0
        self._started = time.perf_counter()
        self._first: int | None = None
        self._bar = Progress(
            TextColumn("[bold]round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=rounds, status="loading model and data")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, totals: RoundRow) -> None:
        """Show a finished round."""
        self._first = totals.round if self._first is None else self._first
        self._bits += totals.uplink_bits
        self._seconds += totals.seconds
        self._joules += totals.joules
        if totals.accuracy is not None:
            self._score, self._scored = score(totals), totals.round
        of = "" if self._scored == totals.round else f" (round {self._scored})"
        spent = "" if self._measured else f" simulated | {self._joules:.1f} J"
        status = (
            f"{self._score}{of} | {self._bits / 1e6:.1f} Mbit up | {self._seconds:.1f} s{spent}"
        )
        self._bar.update(self._task, completed=totals.round, status=status)
        if not self._console.is_terminal and not self._quiet:
            # A pipe's line is never wrapped, so that it can be read by line.
            self._console.print(
                f"round {totals.round}/{self._rounds} | {status} | {self._left(totals.round)}",
                soft_wrap=True,
                highlight=False,
            )

    def _left(self, round: int) -> str:
        done = round - (self._first or 0)
        if done == 0:
            return "time left unknown"
        seconds = (time.perf_counter() - self._started) / done * (self._rounds - round)
        return f"{seconds:.0f} s left"
