"""Letters on a stream: each behind its length, so that a cut one is known for what it is."""

from __future__ import annotations

import socket
import struct

_LENGTH = struct.Struct("<Q")
_CHUNK = 1 << 20


class ClosedError(ConnectionError):
    """The other side is gone, at the end of a frame or within one."""


def send(connection: socket.socket, data: bytes) -> None:
    """Send one frame; raise ClosedError if the other side is gone."""
    try:
        connection.sendall(_LENGTH.pack(len(data)))
        connection.sendall(data)
    except OSError as error:
        raise ClosedError(f"the connection broke while {len(data)} bytes were sent.") from error


def receive(connection: socket.socket, most_bytes: int) -> bytes:
    """Return one frame.

    Raises ClosedError if the other side is gone before its end, ValueError for a length above
    ``most_bytes``: the connection is of no use then, as nobody knows where the next frame begins.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > most_bytes:
        raise ValueError(f"a frame of {length} bytes is too large; at most {most_bytes}.")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    # Grown as bytes come: a length alone makes nobody set memory aside.
    found = bytearray()
    while len(found) < length:
        try:
            part = connection.recv(min(_CHUNK, length - len(found)))
        except OSError as error:
            raise ClosedError(
                f"the connection broke after {len(found)} of {length} bytes."
            ) from error
        if not part:
            raise ClosedError(f"the connection closed after {len(found)} of {length} bytes.")
        found += part
    return bytes(found)
