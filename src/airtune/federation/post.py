"""Questions to many machines at once, numbered; answers as they come, up to a limit of time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from airtune.federation.contents import Content, Problem
from airtune.federation.letters import MOST_BYTES, Letter, LetterError, answer, write

C = TypeVar("C", bound=Content)
Node = str
GRACE_S = 60.0  # for answers that come too late, and still say how a link was


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
    """What a device answered, ``seconds`` after it was asked."""

    content: C
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Silence:
    """Why there is no answer.

    ``late``: it may come, but not in time. ``unready``: the device says that it must be set up
    first. ``busy``: it was not even asked, as it still owes an answer to an earlier question.
    ``owed`` is the question that a late or busy device has, put to it ``seconds`` ago.
    """

    reason: str
    late: bool = False
    busy: bool = False
    unready: bool = False
    owed: Content | None = None
    seconds: float = 0.0


class Post:
    """The letters of one run; a device is asked one thing at a time."""

    def __init__(
        self,
        carrier: Carrier,
        run: bytes,
        say: Callable[[str], None],
        most_bytes: int = MOST_BYTES,
        aside: Callable[[Node, Content], None] = lambda node, content: None,
    ) -> None:
        """``say`` gets sentences about what had to be refused, ``aside`` what came too late."""
        self._carrier, self.run, self._say, self._most_bytes = carrier, run, say, most_bytes
        # From the clock, so that a server that was started again goes on above where it was.
        self._sequence = time.time_ns()
        self._aside = aside
        # Who has not answered what: ticket, letter, when it was asked.
        self._owed: dict[Node, tuple[int, Letter, float]] = {}

    def start_above(self, sequence: int) -> None:
        """Go on above a number that was heard: a server's clock may have been set back."""
        self._sequence = max(self._sequence, sequence)

    def nodes(self) -> Collection[Node]:
        """Return who can be reached now."""
        return self._carrier.nodes()

    def ask(
        self, questions: Mapping[Node, tuple[Content, bytes]], kind: type[C], seconds: float
    ) -> dict[Node, Answer[C] | Silence]:
        """Send a letter to each node and return what came back within ``seconds``."""
        self.listen()
        found: dict[Node, Answer[C] | Silence] = {}
        waiting: dict[int, tuple[Node, Letter, float]] = {}
        for node, (content, body) in questions.items():
            if node in self._owed:
                _, letter, asked = self._owed[node]
                why = "the device is still busy with an earlier round"
                ago = time.monotonic() - asked
                found[node] = Silence(why, True, True, owed=letter.content, seconds=ago)
                continue
            self._sequence += 1
            letter = Letter(self.run, self._sequence, content, body)
            asked = time.monotonic()
            ticket = self._carrier.post(node, write(letter), seconds + GRACE_S)
            waiting[ticket] = node, letter, asked
        end = time.monotonic() + seconds
        while waiting and (left := end - time.monotonic()) > 0:
            for ticket, data in self._carrier.collect(list(waiting), left).items():
                node, letter, asked = waiting.pop(ticket)
                took = time.monotonic() - asked
                found[node] = self._opened(node, data, letter, kind, took)
        for ticket, (node, letter, asked) in waiting.items():
            self._owed[node] = ticket, letter, asked
            why = f"the device did not answer within {round(seconds, 1):g} s"
            ago = time.monotonic() - asked
            found[node] = Silence(why, late=True, owed=letter.content, seconds=ago)
        return {node: found[node] for node in questions}

    def _opened(
        self, node: Node, data: bytes | None, letter: Letter, kind: type[C], took: float
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
        return Answer(content, body, took)

    def listen(self) -> None:
        """Let go of answers that came too late, so that their devices can be asked again."""
        if not self._owed:
            return
        nodes = {owed[0]: node for node, owed in self._owed.items()}
        for ticket, data in self._carrier.collect(list(nodes), 0.0).items():
            letter = self._owed.pop(nodes[ticket])[1]
            with contextlib.suppress(LetterError):
                if data is not None:
                    content, _ = answer(data, letter, Content, self._most_bytes)
                    self._aside(nodes[ticket], content)
