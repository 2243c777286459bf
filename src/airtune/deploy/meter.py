"""How fast a device's link is, seen where it begins: a relay that counts bytes and seconds.

The carrier's program connects to a port of this machine, and the relay to the server. Encrypted
bytes pass as they are, so it works beneath any protocol of requests and responses. Requests and
responses too small to tell a rate (polls, confirmations) are carried and not counted.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BULK_BYTES = 4096
_TAKE = 1 << 16
_CONNECT_S = 20.0
_PAUSE_S = 0.05
_BUSY = struct.Struct("@Q")  # tcpi_busy_time of Linux's struct tcp_info, microseconds
_BUSY_AT = 168  # bytes before it; the kernel only ever adds at the end
_TICK_S = 0.004  # in which the kernel counts
_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: on, for no time


@dataclass(frozen=True)
class Moved:
    """Bytes that went one way, and the seconds in which any of them were under way."""

    bytes: int = 0
    seconds: float = 0.0


@dataclass
class _Spans:
    """Stretches of time with the bytes that each of them moved, which may overlap."""

    bytes: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)

    def add(self, begin: float, end: float, count: int) -> None:
        self.bytes += count
        self.spans.append((begin, end))

    def taken(self) -> Moved:
        """Return bytes and seconds, overlapping ones once, and begin anew."""
        seconds, until = 0.0, float("-inf")
        for begin, end in sorted(self.spans):
            seconds += max(end - max(begin, until), 0.0)
            until = max(until, end)
        moved, self.bytes = Moved(self.bytes, seconds), 0
        self.spans.clear()
        return moved


class Meter:
    """A relay to one server that measures both directions of what passes."""

    def __init__(self, host: str, port: int, now: Callable[[], float] = time.monotonic) -> None:
        """Listen on a free ``port`` of the loopback interface."""
        self._server, self._now = (host, port), now
        self._lock = threading.Lock()
        self._up, self._down = _Spans(), _Spans()
        self._lines: set[_Line] = set()
        self.problem: str | None = None  # why the server cannot be reached, if it cannot
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def taken(self) -> tuple[Moved, Moved]:
        """Return what went up and what came down since this was last called."""
        with self._lock:
            for line in self._lines:
                line.settle(self._down)
            return self._up.taken(), self._down.taken()

    def close(self) -> None:
        """Hang up."""
        self._listener.close()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.close()

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed; or a connection that was given up, or too many files
                time.sleep(_PAUSE_S)
                continue
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._server, _CONNECT_S)
        except OSError as error:
            self.problem = f"it cannot be reached ({error.strerror or error})"
            # Reset, as by a port where nobody is: a plain end within TLS makes Flower give up.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            near.close()
            return
        self.problem = None
        far.settimeout(None)
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = _Line(near, far)
        with self._lock:
            self._lines.add(line)
        back = threading.Thread(target=self._back, args=(line,), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := near.recv(_TAKE):
                with self._lock:
                    line.asks(len(data), self._now(), self._down, busy_seconds(far))
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)
        back.join()
        line.close()
        with self._lock:
            line.settle(self._down)
            self._lines.discard(line)

    def _back(self, line: _Line) -> None:
        with contextlib.suppress(OSError):
            while data := line.far.recv(_TAKE):
                with self._lock:
                    line.answers(len(data), self._now(), self._up, busy_seconds(line.far))
                line.near.sendall(data)
        with contextlib.suppress(OSError):
            line.near.shutdown(socket.SHUT_WR)


class _Line:
    """One connection, on which requests and responses take turns.

    A request is under way from its first byte to the last confirmation of the other end, where the
    system tells (Linux): what the server does with it before it responds is not the link's. Else
    until the first byte of the response. A response is from its first bytes, which are not counted,
    to its last.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self._asking = False
        self._begin = self._end = 0.0
        self._busy: float | None = None  # at the first byte of the request
        self._bytes = 0

    def asks(self, count: int, now: float, down: _Spans, busy: float | None = None) -> None:
        """Note bytes to the server; ``busy`` are seconds that the connection has sent in so far."""
        if not self._asking:
            self.settle(down)
            self._asking, self._begin, self._bytes, self._busy = True, now, 0, busy
        self._bytes += count

    def answers(self, count: int, now: float, up: _Spans, busy: float | None = None) -> None:
        """Note bytes from the server."""
        if self._asking:
            if self._bytes >= BULK_BYTES:
                end = now
                if busy is not None and self._busy is not None:
                    end = min(self._begin + max(busy - self._busy, _TICK_S), now)
                up.add(self._begin, end, self._bytes)
            self._asking, self._begin, self._bytes = False, now, 0
        else:
            self._bytes += count
        self._end = now

    def settle(self, down: _Spans) -> None:
        """Note what there is of a response."""
        if not self._asking and self._bytes >= BULK_BYTES:
            down.add(self._begin, self._end, self._bytes)
            self._begin, self._bytes = self._end, 0

    def close(self) -> None:
        """Hang up at both ends."""
        for each in (self.near, self.far):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def busy_seconds(line: socket.socket) -> float | None:
    """Return how long a connection has had bytes that were not confirmed, None if unknown."""
    if sys.platform != "linux":  # others have such a structure with other fields, or none
        return None
    try:
        told = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BUSY_AT + _BUSY.size)
        return float(_BUSY.unpack_from(told, _BUSY_AT)[0]) / 1e6
    except (OSError, struct.error):  # hung up, or an old kernel
        return None
