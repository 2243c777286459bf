"""Letters over Unix sockets: a device that listens, and a carrier to devices on this machine."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from airtune.federation import frames
from airtune.federation.frames import ClosedError

MOST_BYTES = 1 << 31


def listen(path: Path, answer: Callable[[bytes], bytes], most_bytes: int = MOST_BYTES) -> None:
    """Answer letters at ``path`` for ever; only this user can connect."""
    answering(listener(path), answer, most_bytes)


def listener(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``; raise OSError where that cannot be."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    server = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        server.bind(str(path))
    except OSError:
        server.close()
        raise
    finally:
        os.umask(before)
    server.listen(8)
    return server


def answering(
    server: socket.socket, answer: Callable[[bytes], bytes], most_bytes: int = MOST_BYTES
) -> None:
    """Answer letters for ever, one connection after another."""
    with server:
        while True:
            connection, _ = server.accept()
            with connection:
                serve(connection, answer, most_bytes)


def serve(
    connection: socket.socket, answer: Callable[[bytes], bytes], most_bytes: int = MOST_BYTES
) -> None:
    """Answer letters of one connection until it closes, or is of no use any more."""
    with contextlib.suppress(ClosedError, ValueError):
        while True:
            frames.send(connection, answer(frames.receive(connection, most_bytes)))


class SocketCarrier:
    """Reaches devices that listen on this machine, one thread for each; a node is a path."""

    def __init__(self, paths: Collection[Path]) -> None:
        self._paths = [str(path) for path in paths]
        self._lines: dict[str, _Line] = {}
        self._answers: dict[int, bytes | None] = {}
        self._came = threading.Condition()
        self._tickets = 0

    def nodes(self) -> list[str]:
        """Return the devices that are connected; those that are not are tried again."""
        for path in self._paths:
            line = self._lines.get(path)
            if line is None or not line.is_open():
                try:
                    self._lines[path] = _Line(path, self._put)
                except OSError:
                    self._lines.pop(path, None)
        return list(self._lines)

    def post(self, node: str, data: bytes, seconds: float) -> int:
        """Hand a letter to a device's thread."""
        del seconds  # a broken connection is known at once, and an open one may take its time
        self._tickets += 1
        line = self._lines.get(node)
        if line is None or not line.give(self._tickets, data):
            self._put(self._tickets, None)
        return self._tickets

    def collect(self, tickets: Collection[int], seconds: float) -> dict[int, bytes | None]:
        """Return the answers that are there, waiting at most so long for the first of them."""
        end = time.monotonic() + seconds
        with self._came:
            while True:
                here = {t: self._answers.pop(t) for t in tickets if t in self._answers}
                if here or (left := end - time.monotonic()) <= 0:
                    return here
                self._came.wait(left)

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines.values():
            line.close()

    def _put(self, ticket: int, answer: bytes | None) -> None:
        with self._came:
            self._answers[ticket] = answer
            self._came.notify_all()


class _Line:
    """One connection, whose thread sends a letter and waits for its answer."""

    def __init__(self, path: str, put: Callable[[int, bytes | None], None]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._put = put
        self._letters: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.is_closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def give(self, ticket: int, data: bytes) -> bool:
        """Take a letter, unless the line is dead."""
        with self._lock:
            if not self.is_closed:
                self._letters.put((ticket, data))
            return not self.is_closed

    def is_open(self) -> bool:
        """Return whether the device is at the other end still."""
        try:
            gone = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        return not (gone or self.is_closed)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._letters.put(None)

    def _work(self) -> None:
        while (given := self._letters.get()) is not None:
            ticket, data = given
            try:
                frames.send(self._socket, data)
                answer: bytes | None = frames.receive(self._socket, MOST_BYTES)
            except (ClosedError, ValueError):
                self._end(ticket)
                return
            self._put(ticket, answer)
        self._end(None)

    def _end(self, ticket: int | None) -> None:
        with self._lock:  # nothing is given from here on
            self.is_closed = True
        self._socket.close()
        if ticket is not None:
            self._put(ticket, None)
        with contextlib.suppress(queue.Empty):
            while True:
                given = self._letters.get_nowait()
                if given is not None:
                    self._put(given[0], None)
