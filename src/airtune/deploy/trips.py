"""What a device tells of its link and its time, beside its answers."""

from __future__ import annotations

import time

from airtune.deploy.meter import Meter, Moved
from airtune.federation.contents import Answering, Content, Done, Ready, Task, Trip
from airtune.federation.letters import Letter


class Trips:
    """Between letters: how the answer before went up, and how the letter at hand came down."""

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._uploaded: tuple[int, int] | None = None  # round and bytes of the body, if to be told
        self._up, self._down, self._began = Moved(), Moved(), 0.0

    def begin(self) -> None:
        """Look at the meter: a letter is here."""
        self._began = time.monotonic()
        if self._meter is not None:
            up, self._down = self._meter.taken()
            # Letters that tell nothing may come between: greetings.
            self._up = Moved(self._up.bytes + up.bytes, self._up.seconds + up.seconds)

    def told(self, letter: Letter, content: Content, body: bytes) -> Content:
        """Return an answer with what is known now, and note what it is for the next one."""
        told: dict[str, object] = {}
        if isinstance(content, Answering) and self._uploaded is not None:
            told["last_up"] = _trip(*self._uploaded, self._up)
            self._uploaded = None
        if isinstance(content, Done) and isinstance(letter.content, Task):
            told["compute_seconds"] = time.monotonic() - self._began
            told["down"] = _trip(letter.content.round, len(letter.body), self._down)
            self._uploaded, self._up = (letter.content.round, len(body)), Moved()
        if isinstance(content, Ready):
            self._uploaded, self._up = (0, len(body)), Moved()
        return content.model_copy(update={k: v for k, v in told.items() if v is not None})


def _trip(round: int, body: int, moved: Moved) -> Trip | None:
    """Return how a message went; None if nothing was measured."""
    if moved.bytes == 0 or moved.seconds <= 0.0:
        return None
    return Trip(round=round, body_bytes=body, bytes=moved.bytes, seconds=moved.seconds)
