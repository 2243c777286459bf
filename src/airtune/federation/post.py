"""Questions to many machines at once, numbered; answers as they come, up to a limit of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from airtune.federation.contents import Content, Problem
from airtune.federation.letters import MOST_BYTES, Letter, LetterError, answer, write

C = TypeVar("C", bound=Content)
Node = str


class Carrier(Protocol):
    """What moves letters to devices and back: sockets on one machine, Flower between machines.

    A node's name is the carrier's own and lasts as long as it can be reached under it.
    """

    def nodes(self) -> Collection[Node]:
        """Return who can be reached now."""
        ...

    def post(self, node: Node, data: bytes, seconds: float) -> int:
        """Hand a letter over without waiting for the device; return the ticket of its answer.

        After ``seconds`` nobody asks for the answer any more.
        """
        ...

    def collect(self, tickets: Collection[int], seconds: float) -> dict[int, bytes | None]:
        """Return the answers that are there, waiting at most so long for the first of them.

        None stands for an answer that will never come.
        """
        ...


@dataclass(frozen=True)
class Answer(Generic[C]):
    """What a device answered."""

    content: C
    body: bytes


@dataclass(frozen=True)
class Silence:
    """Why there is no answer.

    ``late``: it may come, but not in time. ``unready``: the device says that it must be set up
    first.
    """

    reason: str
    late: bool = False
    unready: bool = False


class Post:
    """The letters of one run; a device is asked one thing at a time."""

    def __init__(
        self,
        carrier: Carrier,
        run: bytes,
        say: Callable[[str], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """``say`` gets a sentence about whatever had to be refused."""
        self._carrier, self.run, self._say, self._most_bytes = carrier, run, say, most_bytes
        # From the clock, so that a server that was started again goes on above where it was.
        self._sequence = time.time_ns()
        self._owed: dict[Node, int] = {}  # who still owes an answer that came too late

    def nodes(self) -> Collection[Node]:
        """Return who can be reached now."""
        return self._carrier.nodes()

    def ask(
        self, questions: Mapping[Node, tuple[Content, bytes]], kind: type[C], seconds: float
    ) -> dict[Node, Answer[C] | Silence]:
        """Send a letter to each node and return what came back within ``seconds``."""
        self._forgive()
        found: dict[Node, Answer[C] | Silence] = {}
        waiting: dict[int, tuple[Node, Letter]] = {}
        for node, (content, body) in questions.items():
            if node in self._owed:
                found[node] = Silence("the device is still busy with an earlier round", late=True)
                continue
            self._sequence += 1
            letter = Letter(self.run, self._sequence, content, body)
            waiting[self._carrier.post(node, write(letter), seconds)] = node, letter
        end = time.monotonic() + seconds
        while waiting and (left := end - time.monotonic()) > 0:
            for ticket, data in self._carrier.collect(list(waiting), left).items():
                node, letter = waiting.pop(ticket)
                found[node] = self._opened(node, data, letter, kind)
        for ticket, (node, _) in waiting.items():
            self._owed[node] = ticket
            found[node] = Silence(f"the device did not answer within {seconds:g} s", late=True)
        return {node: found[node] for node in questions}

    def _opened(
        self, node: Node, data: bytes | None, letter: Letter, kind: type[C]
    ) -> Answer[C] | Silence:
        if data is None:
            return Silence("the connection to the device broke")
        try:
            content, body = answer(data, letter, kind, self._most_bytes)
        except LetterError as error:
            sentence = error.args[0]
            unready = isinstance(error.content, Problem) and error.content.unready
            if not unready:
                self._say(f"device {node}: {sentence}")
            return Silence(sentence.rstrip("."), unready=unready)
        return Answer(content, body)

    def _forgive(self) -> None:
        """Let go of answers that came too late, so that their devices can be asked again."""
        if not self._owed:
            return
        there = self._carrier.collect(list(self._owed.values()), 0.0)
        self._owed = {node: ticket for node, ticket in self._owed.items() if ticket not in there}
