"""How the server reaches its clients, wherever they live: bytes go out, bytes come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from airtune.radio.grant import Grant


@dataclass(frozen=True)
class Order:
    """One client's part of a round: what it heard, and what it may send."""

    client: int
    round: int
    message: bytes
    grant: Grant


@dataclass(frozen=True)
class Reply:
    """What a client gives back: bytes for the uplink (or none), and what its training took.

    ``loss`` is the mean training loss of all steps, ``gradient_norm`` the mean norm of the gradient
    before clipping, both None without a step or if ``diverged``;
    ``tokens`` were trained on, ``predicted_tokens`` only looked at; ``problem`` says why there is
    no message, ``notes`` what a method wants recorded beside it.
    """

    client: int
    message: bytes | None
    loss: float | None
    tokens: int
    problem: str | None = None
    diverged: bool = False
    predicted_tokens: int = 0
    notes: Mapping[str, float | str] = field(default_factory=dict)
    gradient_norm: float | None = None


class Federation(Protocol):
    """The clients of an experiment, in this process or elsewhere."""

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Carry out the orders and return the replies, in the order of the orders."""
        ...
