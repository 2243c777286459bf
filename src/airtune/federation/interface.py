"""How the server reaches its clients, wherever they live: bytes go out, bytes come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from airtune.radio.grant import Grant

Fate = Literal["withheld", "missed", "late"]


@dataclass(frozen=True)
class Order:
    """One client's part of a round: what it heard, and what it may send."""

    client: int
    round: int
    message: bytes
    grant: Grant


@dataclass(frozen=True)
class Took:
    """Seconds by the clock on the wall: from order to reply, and those of computing in them."""

    seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Reply:
    """What a client gives back: bytes for the uplink (or none), and what its training took.

    ``loss`` is the mean training loss of all steps, ``gradient_norm`` the mean norm of the gradient
    before clipping, both None without a step or if ``diverged``;
    ``tokens`` were trained on, ``predicted_tokens`` only looked at; ``problem`` says why there is
    no message, ``fate`` whether the client sent none, could not be reached or did not answer in
    time; ``notes`` are what a method wants recorded beside it; ``took`` is known between machines.
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
    fate: Fate = "withheld"
    took: Took | None = None


class Federation(Protocol):
    """The clients of an experiment, in this process or elsewhere."""

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Carry out the orders and return the replies, in the order of the orders."""
        ...


class Clients(Federation, Protocol):
    """A federation whose clients keep something between rounds, in step with checkpoints."""

    def open(self, folder: Path, index: Tensor | None) -> None:
        """Go on from what the last checkpoint's ``index`` says, None: anew."""
        ...

    def write(self) -> Tensor:
        """Make what clients keep safe; return the index that the checkpoint needs to hold."""
        ...

    def clean(self) -> None:
        """Forget what only an earlier checkpoint needed; called once one holds the last index."""
        ...
