"""What both sides of a masked sum know: who takes part, under which keys, bound to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airtune.federation.secure.messages import SecureSumError, clients_in, parts

KEY_BYTES = 32
ENTRY_BYTES = 4 + 2 * KEY_BYTES


@dataclass(frozen=True)
class Roster:
    """The public keys, for boxes and for masks, of all who take part, by ascending client."""

    keys: Mapping[int, tuple[bytes, bytes]]

    @classmethod
    def read(cls, body: bytes) -> Roster:
        """Return the roster in a body; raise SecureSumError for clients or keys that repeat."""
        entries = parts(body, ENTRY_BYTES)
        found = clients_in(b"".join(entry[:4] for entry in entries))
        keys = [(entry[4 : 4 + KEY_BYTES], entry[4 + KEY_BYTES :]) for entry in entries]
        if len({key for pair in keys for key in pair}) < 2 * len(keys):
            raise SecureSumError("two clients of the roster have the same key.")
        return cls(dict(zip(found, keys, strict=True)))

    def sorted(self) -> Roster:
        """Return the roster by ascending client."""
        return Roster(dict(sorted(self.keys.items())))

    def write(self) -> bytes:
        """Return the body."""
        entries = (c.to_bytes(4, "little") + a + b for c, (a, b) in self.keys.items())
        return b"".join(entries)

    @property
    def clients(self) -> list[int]:
        """All who take part, ascending."""
        return list(self.keys)

    def place(self, client: int) -> int:
        """Return a client's place, which its shares have too."""
        return self.clients.index(client)


def about_pair(context: bytes, purpose: bytes, first: int, second: int) -> bytes:
    """Return what binds a key or box to a round and two clients, in this order."""
    pair = first.to_bytes(4, "little") + second.to_bytes(4, "little")
    return purpose + b"|" + context + pair


def about_masks(context: bytes, one: int, other: int) -> bytes:
    """Return what binds a pairwise mask to its clients, whichever of them asks."""
    return about_pair(context, b"mask", min(one, other), max(one, other))


def about_self(context: bytes, client: int) -> bytes:
    """Return what binds a self mask to its client."""
    return about_pair(context, b"self", client, client)
