"""Simulated seconds, from a queue of events."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

E = TypeVar("E")


class Clock(Generic[E]):
    """Simulated time in seconds; a synchronous round is the case that drains the queue.

    Events of the same instant come in the order in which they were scheduled.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, E]] = []
        self._scheduled = 0

    def after(self, seconds: float, event: E) -> None:
        """Let ``event`` happen that many seconds from now."""
        heapq.heappush(self._queue, (self.now + seconds, self._scheduled, event))
        self._scheduled += 1

    def drain(self, until: float = math.inf) -> Iterator[E]:
        """Yield events in order of time, moving ``now`` along, up to and including ``until``."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, event = heapq.heappop(self._queue)
            yield event

    def give_up(self, until: float) -> list[E]:
        """Move to ``until`` and return the events that would have come later, in order."""
        late = [event for _, _, event in sorted(self._queue)]
        if late:
            self.now = until
        self._queue.clear()
        return late
