"""Letters by Flower: requests to the ServerApp, which speaks to the SuperLink."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Collection
from pathlib import Path

from airtune.errors import UserError
from airtune.federation import frames

MOST_BYTES = 1 << 31
_POST = struct.Struct("<Qd")
_POLL_S = 0.1
_NODES_S = 2.0  # how long a list of nodes is good for


class FlowerCarrier:
    """Reaches devices through the ServerApp that connects to ``path``; a node is its Flower id.

    The run is over if that connection is: whatever Flower's commands return, a run whose ServerApp
    ended fails here.
    """

    def __init__(
        self,
        path: Path,
        why: Callable[[], str],
        tidy: Callable[[], None],
        sent: Callable[[], None] | None = None,
    ) -> None:
        """Listen.

        ``why`` says what Flower's log knows, ``tidy`` is called before nodes are asked for,
        ``sent`` before a letter is handed over.
        """
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(1)
        self._line: socket.socket | None = None
        self._why, self._tidy, self._sent = why, tidy, sent
        self._names: dict[int, str] = {}  # ticket -> Flower's name of the message, "": none
        self._ends: dict[int, float] = {}  # ticket -> when nobody waits for its answer any more
        self._tickets = 0
        self._nodes: tuple[float, list[str]] = (-_NODES_S, [])

    def wait(self, seconds: float) -> None:
        """Wait for the ServerApp; raise UserError if it does not come."""
        self._listener.settimeout(seconds)
        try:
            self._line, _ = self._listener.accept()
        except TimeoutError:
            raise UserError(
                f"Flower did not start the run within {seconds:g} s: {self._why()}"
            ) from None
        self._line.settimeout(None)

    def nodes(self) -> list[str]:
        """Return the nodes that are connected."""
        if time.monotonic() - self._nodes[0] >= _NODES_S:
            self._tidy()
            found = json.loads(self._asked(b"N"))
            self._nodes = time.monotonic(), found
        return self._nodes[1]

    def post(self, node: str, data: bytes, seconds: float) -> int:
        """Hand a letter over; Flower drops it, and its answer, when the seconds are over."""
        self._tickets += 1
        if self._sent is not None:
            self._sent()
        name = self._asked(b"P" + _POST.pack(int(node), max(seconds, 1.0)) + data)
        self._names[self._tickets] = name.decode()
        self._ends[self._tickets] = time.monotonic() + seconds
        return self._tickets

    def collect(self, tickets: Collection[int], seconds: float) -> dict[int, bytes | None]:
        """Return the answers that are there, waiting at most so long for the first of them."""
        end = time.monotonic() + seconds
        while True:
            here = self._pulled(tickets)
            if here or time.monotonic() + _POLL_S > end:
                return here
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Let the ServerApp end."""
        if self._line is not None:
            with contextlib.suppress(frames.ClosedError):
                frames.send(self._line, b"E")
            self._line.close()
        self._listener.close()

    def _pulled(self, tickets: Collection[int]) -> dict[int, bytes | None]:
        # A message that is asked for again after its answer was had is an error to Flower.
        wanted = {self._names[t]: t for t in tickets if self._names.get(t)}
        here: dict[int, bytes | None] = {t: None for t in tickets if not self._names.get(t)}
        if wanted:
            index = json.loads(self._asked(b"G" + json.dumps(sorted(wanted)).encode()))
            for name, there in index.items():
                here[wanted[name]] = self._received() if there else None
        # Flower goes on waiting for an answer of which it has a part, even if the rest cannot come.
        now = time.monotonic()
        here |= {t: None for t in wanted.values() if t not in here and self._ends[t] <= now}
        for ticket in here:
            self._names.pop(ticket, None)
            self._ends.pop(ticket, None)
        return here

    def _asked(self, request: bytes) -> bytes:
        if self._line is None:
            raise UserError("Flower's run has not begun.")
        try:
            frames.send(self._line, request)
        except frames.ClosedError as error:
            raise self._over() from error
        return self._received()

    def _received(self) -> bytes:
        assert self._line is not None
        try:
            return frames.receive(self._line, MOST_BYTES)
        except frames.ClosedError as error:
            raise self._over() from error

    def _over(self) -> UserError:
        return UserError(
            f"Flower ended the run; the same command with --resume continues: {self._why()}"
        )
