"""Clients on machines of their own: orders go to all of them at once, replies come or do not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.federation.contents import (
    Answering,
    Content,
    Done,
    Inquired,
    Inquiry,
    Question,
    Ready,
    Scores,
    Start,
    Task,
)
from airtune.federation.evaluation import Personal, ServerEvaluator
from airtune.federation.interface import Fate, Order, Reply, Took
from airtune.federation.letters import MOST_BYTES
from airtune.federation.measuring import MeasuredCell
from airtune.federation.post import Answer, Carrier, Node, Post, Silence
from airtune.federation.roster import Roster
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Learner
from airtune.methods.method import Method
from airtune.methods.views import State

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


class Remote:
    """A federation of devices; one that fails is a reply with a problem, and is asked again.

    A device that was started again says so, gets the run's start anew, and goes on from the state
    on its own disk.
    """

    def __init__(
        self,
        carrier: Carrier,
        run: bytes,
        count: int,
        patience: Patience,
        say: Callable[[str], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """``run`` are the 16 bytes by which devices know this run from others."""
        self._post = Post(carrier, run, say, most_bytes, self._hear_late)
        self.roster = Roster(self._post, count, say)
        self._patience, self._say = patience, say
        self._starts: Callable[[int], tuple[Start, bytes]] | None = None
        self._sketches: Sequence[str] = ()
        self._settled = self._round = 0
        self.cell: MeasuredCell | None = None  # hears what devices report of their links

    def gather(self) -> None:
        """Wait for the devices; raise UserError if they do not come."""
        self.roster.gather(self._patience.devices, min(GREET_S, self._patience.devices))

    def start(
        self, starts: Callable[[int], tuple[Start, bytes]], sketches: Sequence[str]
    ) -> dict[int, Ready]:
        """Set all devices up; return what they said of themselves, by client.

        ``starts`` returns a client's start and the public texts, ``sketches`` are those of the
        clients' models: client i has number i mod count. Raises UserError where a device cannot
        take part that none of the rounds could do without: planning needs to know all of them.
        """
        self._starts, self._sketches = starts, sketches
        clients = range(len(self.roster.members))
        silent = self._set_up([client for client in clients if self.roster.node(client)])
        missing = [client for client in clients if client not in self.roster.ready]
        if missing:
            client = missing[0]
            why = silent[client].reason if client in silent else "it is not there"
            raise UserError(f"device {self.roster.members[client].device} cannot take part: {why}.")
        return self.roster.ready

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Carry out the orders on their devices at the same time, and return the replies."""
        if orders:
            self._round = orders[0].round
        questions = {
            order.client: (Task.of(order, self._settled), order.message) for order in orders
        }
        limit = self._patience.round or self._patience.answer
        began = time.monotonic()
        found = self._ask(questions, Done, limit)
        waited = time.monotonic() - began
        replies = []
        for order in orders:
            each = found[order.client]
            if isinstance(each, Answer):
                replies.append(each.content.reply(order.client, each.body, each.seconds))
            else:
                fate: Fate = "late" if each.late else "missed"
                took = Took(waited, 0.0)
                reply = Reply(order.client, None, None, 0, each.reason, fate=fate, took=took)
                replies.append(reply)
        self._report(found)
        return replies

    def sound(self) -> None:
        """Ask how what devices sent to sound their links went.

        Raises UserError where none of them measures its link.
        """
        assert self.cell is not None
        clients = [c for c in range(len(self.roster.members)) if self.roster.node(c)]
        asked = {client: (Inquiry(), b"") for client in clients}
        for client, each in self._post_to(asked, Inquired, self._patience.answer).items():
            if isinstance(each, Answer):
                self.cell.asked_idly(client, each.seconds)
        if not any(self.cell.is_known(client) for client in clients):
            raise UserError(
                "cell.measured: no device measures its link; those that airtune join starts do."
            )

    def scores(self, clients: Sequence[int], round: int, broadcast: bytes) -> Personal:
        """Return what these clients' own models are worth on their own texts, of who answers."""
        asked = {c: (Question(round=round), broadcast) for c in clients}
        found = self._ask(asked, Scores, self._patience.answer)
        return {
            client: {k: v for k, v in each.content.scores.items() if math.isfinite(v)}
            for client, each in found.items()
            if isinstance(each, Answer)
        }

    def open(self, folder: Path, index: Tensor | None) -> None:
        """Note which device is which client; states are on the devices' own disks."""
        if index is not None and index.dim() != 0:
            raise UserError(
                f"'{folder.parent.parent}' is a run in one process; continue it by airtune run "
                "--resume, or name another directory."
            )
        self.roster.save(folder)
        self._settled = self._round = 0 if index is None else int(index)

    def write(self) -> Tensor:
        """Return the last round that devices trained in."""
        return torch.tensor(self._round)

    def clean(self) -> None:
        """Note that this round will not be repeated: devices may forget what was before it."""
        self._settled = self._round

    def _ask(
        self, questions: Mapping[int, tuple[Content, bytes]], kind: type[Content], seconds: float
    ) -> dict[int, Answer | Silence]:
        """Ask clients, after setting up those that were started again."""
        end = time.monotonic() + seconds
        self.roster.refresh(min(GREET_S, seconds))
        found = self._post_to(questions, kind, max(end - time.monotonic(), 0.0))
        unready = [c for c, each in found.items() if isinstance(each, Silence) and each.unready]
        left = end - time.monotonic()
        if unready and left > 0:
            silent = self._set_up(unready, left)
            found |= silent
            again = {client: questions[client] for client in unready if client not in silent}
            found |= self._post_to(again, kind, max(end - time.monotonic(), 0.0))
        return found

    def _post_to(
        self, questions: Mapping[int, tuple[Content, bytes]], kind: type[Content], seconds: float
    ) -> dict[int, Answer | Silence]:
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

    def _report(self, found: Mapping[int, Answer | Silence]) -> None:
        """Note how long a round's exchanges took, after what their answers say of earlier ones."""
        for client, each in found.items():
            if self.cell is None or (isinstance(each, Silence) and not each.late):
                continue
            if isinstance(each, Answer):
                self.cell.took(client, self._round, each.seconds)
            elif not each.busy:
                limit = self._patience.round or self._patience.answer
                self.cell.gave_up(client, self._round, limit)

    def _set_up(self, clients: Sequence[int], seconds: float | None = None) -> dict[int, Silence]:
        """Send clients the run's start; return those that are not ready after it, and why."""
        assert self._starts is not None
        wait = self._patience.start if seconds is None else min(seconds, self._patience.start)
        found = self._post_to({c: self._starts(c) for c in clients}, Ready, wait)
        silent = {}
        for client, each in found.items():
            if isinstance(each, Silence):
                silent[client] = each
            elif each.content.sketch != self._sketches[client % len(self._sketches)]:
                silent[client] = Silence("its model has other weights than the server's")
            elif self.roster.ready.setdefault(client, each.content) != each.content:
                silent[client] = Silence("it came back with other rows")
        return silent


class AskingEvaluator(ServerEvaluator):
    """Has each device evaluate its own model on its own texts; none of them leaves it."""

    def __init__(
        self,
        method: Method,
        learner: Learner,
        test: Examples,
        clients_test: Examples,
        remote: Remote,
        tested: Sequence[int],
    ) -> None:
        """Set up; ``tested`` are the clients that have test texts and are asked."""
        super().__init__(method, learner, test, clients_test)
        self._remote, self._tested = remote, tested

    def _own(self, broadcast: bytes, round: int, state: State) -> tuple[Personal, list[float]]:
        del state
        return self._remote.scores(self._tested, round, broadcast), []
