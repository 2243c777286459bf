"""The devices of a run as its server asks them: by client, whoever was started again in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from airtune.federation.contents import Answering, Content, Done, Ready, Start
from airtune.federation.measuring import MeasuredCell
from airtune.federation.post import Answer, Carrier, Node, Post, Silence
from airtune.federation.roster import Roster

GREET_S = 60.0  # for a device to say who it is


@dataclass(frozen=True)
class Patience:
    """How long the server waits, in seconds of wall time.

    ``devices``: for all to come, at the start. ``start``: for a device to load its model and data.
    ``answer``: for the answers to a question. ``round``: for those of a round, as long by default.
    """

    devices: float = 600.0
    start: float = 600.0
    answer: float = 600.0
    round: float | None = None


class Devices:
    """Questions to clients and their answers; what these say of links goes to ``cell``."""

    def __init__(
        self,
        carrier: Carrier,
        run: bytes,
        count: int,
        patience: Patience,
        say: Callable[[str], None],
        most_bytes: int,
    ) -> None:
        """``run`` are the 16 bytes by which devices know this run from others."""
        self._post = Post(carrier, run, say, most_bytes, self._hear_late)
        self.roster = Roster(self._post, count, say)
        self._patience = patience
        self.cell: MeasuredCell | None = None
        self.starts: Callable[[int], tuple[Start, bytes]] | None = None
        self.sketches: Sequence[str] = ()

    def ask(
        self,
        questions: Mapping[int, tuple[Content, bytes]],
        kind: type[Content],
        seconds: float,
        set_up: bool = True,
    ) -> dict[int, Answer | Silence]:
        """Ask clients, by default after setting up those that were started again."""
        self.roster.refresh(min(GREET_S, seconds))
        end = time.monotonic() + seconds  # who is new is greeted at nobody's expense
        found = self.post_to(questions, kind, seconds)
        unready = [c for c, each in found.items() if isinstance(each, Silence) and each.unready]
        left = end - time.monotonic()
        if unready and not set_up:
            gone = Silence("the device was started again and has lost its secrets")
            found |= dict.fromkeys(unready, gone)
        elif unready and left > 0:
            silent = self.set_up(unready, left)
            found |= silent
            again = {client: questions[client] for client in unready if client not in silent}
            found |= self.post_to(again, kind, max(end - time.monotonic(), 0.0))
        return found

    def post_to(
        self, questions: Mapping[int, tuple[Content, bytes]], kind: type[Content], seconds: float
    ) -> dict[int, Answer | Silence]:
        """Ask clients, whether or not they are set up."""
        nodes = {client: self.roster.node(client) for client in questions}
        found: dict[int, Answer | Silence] = {
            client: Silence("the device is not connected")
            for client, node in nodes.items()
            if node is None
        }
        there: dict[Node, int] = {node: c for c, node in nodes.items() if node is not None}
        asked = {node: questions[client] for node, client in there.items()}
        found |= {there[n]: each for n, each in self._post.ask(asked, kind, seconds).items()}
        for client, each in found.items():
            if isinstance(each, Answer):
                self._hear(client, each.content)
        return found

    def listen(self) -> None:
        """Take answers that came too late: what they say of links is news."""
        self._post.listen()

    def _hear(self, client: int, content: Content) -> None:
        """Take what an answer says of the link."""
        if self.cell is None:
            return
        if isinstance(content, Answering) and content.last_up is not None:
            self.cell.went_up(client, content.last_up)
        if isinstance(content, Done) and content.down is not None:
            self.cell.came_down(client, content.down)

    def _hear_late(self, node: Node, content: Content) -> None:
        for client in range(len(self.roster.members)):
            if self.roster.node(client) == node:
                self._hear(client, content)

    def set_up(self, clients: Sequence[int], seconds: float | None = None) -> dict[int, Silence]:
        """Send clients the run's start; return those that are not ready after it, and why."""
        assert self.starts is not None
        wait = self._patience.start if seconds is None else min(seconds, self._patience.start)
        found = self.post_to({c: self.starts(c) for c in clients}, Ready, wait)
        silent = {}
        for client, each in found.items():
            if isinstance(each, Silence):
                silent[client] = each
            elif each.content.sketch != self.sketches[client % len(self.sketches)]:
                silent[client] = Silence("its model has other weights than the server's")
            elif self.roster.ready.setdefault(client, each.content) != each.content:
                silent[client] = Silence("it came back with other rows")
        return silent
