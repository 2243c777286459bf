"""How the server reaches the clients of one round's masked sum, wherever they live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from airtune.federation.interface import Fate, Federation, Order, Reply
from airtune.federation.secure.terms import Terms


@dataclass(frozen=True)
class Missing:
    """Why a client sent nothing for a step."""

    reason: str
    fate: Fate = "withheld"


Sent = Mapping[int, bytes | Missing]


class Participants(Protocol):
    """The clients of one round; every step is asked of all of its clients at the same time.

    Messages are those of ``messages.py``. What comes back may be anything that a client can send:
    who judges it is the server. ``took_s`` are real seconds of the last step, for links that are
    measured.
    """

    took_s: float

    def keys(self) -> Sent:
        """Return KEYS of all clients."""
        ...

    def shares(self, clients: Iterable[int], roster: bytes) -> Sent:
        """Return SHARES of those who heard the roster."""
        ...

    def exchange(self, orders: Sequence[Order], boxes: Mapping[int, bytes]) -> list[Reply]:
        """Hand over each client's boxes with its order; return the replies, masked."""
        ...

    def unmask(self, clients: Iterable[int], arrived: bytes) -> Sent:
        """Return UNMASK of those who heard who is in the sum."""
        ...


# Makes the participants of a round from a federation, these clients of it and the round's number.
Join = Callable[[Federation, Terms, Sequence[int], int], Participants]
