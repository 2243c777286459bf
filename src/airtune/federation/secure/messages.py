"""The bytes of the masked sum's steps.

Each message is a header and what its step says, little endian::

    magic "AIRS" | step u8 | round's context, 16 bytes | sender u32 (2^32 - 1: the server)
    KEYS     client -> server   key for boxes, key for masks: 32 bytes each
    ROSTER   server -> clients  for each client: number u32, both keys
    SHARES   client -> server   commitment to its self mask's seed; commitments to both shares of
                                each client of the roster, 2 x 16 bytes each; a box of 48 bytes for
                                each other client
    BOXES    server -> client   for each other client that sent shares: number u32, its box
    ARRIVED  server -> clients  number u32 of each client whose masked payload came
    UNMASK   client -> server   for each client that sent shares a share of 16 bytes: of its self
                                mask if its payload came, else of its mask key
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from enum import IntEnum

import numpy as np

SERVER = 2**32 - 1
_HEADER = struct.Struct("<4sB16sI")
_MAGIC = b"AIRS"


class SecureSumError(ValueError):
    """A message that does not belong here, or a sum that cannot be; the text says why."""


class Step(IntEnum):
    """Which step a message belongs to."""

    KEYS = 1
    ROSTER = 2
    SHARES = 3
    BOXES = 4
    ARRIVED = 5
    UNMASK = 6


def context(run: str, round: int) -> bytes:
    """Return the 16 bytes that keep a round's messages apart from all others'."""
    return hashlib.blake2b(f"{run}|{round}".encode(), digest_size=16).digest()


def pack(step: Step, about: bytes, sender: int, body: bytes) -> bytes:
    """Return a message; ``about`` is the round's context."""
    return _HEADER.pack(_MAGIC, step, about, sender) + body


def unpack(message: bytes, step: Step, about: bytes, entry: int = 1) -> tuple[int, bytes]:
    """Return a message's sender and body, whose length is a multiple of ``entry`` bytes.

    Raises SecureSumError for a message of another step or round, or of another length.
    """
    found, where, sender = _header(message)
    if found != step:
        raise SecureSumError(f"a message of step {found} came where step {int(step)} is due.")
    if where != about:
        raise SecureSumError("a message of another round or run came: it is not used again.")
    body = message[_HEADER.size :]
    if len(body) % entry:
        raise SecureSumError(f"{len(body)} bytes are not a whole number of entries of {entry}.")
    return sender, body


def check_sender(message: bytes, client: int) -> None:
    """Raise SecureSumError for a message that is not of this client, from whom it came."""
    *_, sender = _header(message)
    if sender != client:
        raise SecureSumError(f"client {client} sent a message in the name of {sender}.")


def _header(message: bytes) -> tuple[int, bytes, int]:
    if len(message) < _HEADER.size or message[:4] != _MAGIC:
        raise SecureSumError("the bytes do not start as a message of a masked sum.")
    _, step, where, sender = _HEADER.unpack_from(message)
    return step, where, sender


def parts(body: bytes, size: int) -> list[bytes]:
    """Return the entries of a body."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def numbers(clients: list[int]) -> bytes:
    """Return clients as they travel."""
    return np.array(clients, dtype="<u4").tobytes()


def clients_in(body: bytes) -> list[int]:
    """Return clients as they travelled; raise SecureSumError unless they ascend."""
    found: list[int] = np.frombuffer(body, dtype="<u4").tolist()
    if any(first >= second for first, second in itertools.pairwise(found)):
        raise SecureSumError("clients are not listed once each, in ascending order.")
    return found
