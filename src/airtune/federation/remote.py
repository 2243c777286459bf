"""Clients on machines of their own: orders go to all of them at once, replies come or do not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.federation.contents import (
    Content,
    Done,
    Question,
    Ready,
    Scores,
    Start,
    SumAnswer,
    SumStep,
    Task,
)
from airtune.federation.evaluation import Personal, ServerEvaluator
from airtune.federation.interface import Fate, Order, Reply
from airtune.federation.letters import MOST_BYTES
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
    ``answer``: for the answers of a round.
    """

    devices: float = 600.0
    start: float = 600.0
    answer: float = 600.0


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
        self._post = Post(carrier, run, say, most_bytes)
        self.roster = Roster(self._post, count, say)
        self._patience, self._say = patience, say
        self._starts: Callable[[int], tuple[Start, bytes]] | None = None
        self._sketches: Sequence[str] = ()
        self._settled = self._round = 0

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

    def exchange(
        self, orders: Sequence[Order], boxes: Mapping[int, bytes] | None = None
    ) -> list[Reply]:
        """Carry out the orders on their devices at the same time, and return the replies.

        Where uploads are masked, ``boxes`` are what other clients shared with each.
        """
        if orders:
            self._round = orders[0].round
        questions = {}
        for order in orders:
            own = None if boxes is None else boxes[order.client]
            task = Task.of(order, self._settled, own)
            questions[order.client] = task, (own or b"") + order.message
        # A device that was started again could not mask: what it had for that is gone.
        found = self._ask(questions, Done, set_up=boxes is None)
        replies = []
        for order in orders:
            each = found[order.client]
            if isinstance(each, Answer):
                replies.append(each.content.reply(order.client, each.body))
            else:
                replies.append(Reply(order.client, None, None, 0, each.reason, fate=fate(each)))
        return replies

    def sum_step(
        self, step: SumStep, clients: Iterable[int], message: bytes, set_up: bool = False
    ) -> dict[int, Answer | Silence]:
        """Ask for a step of a masked sum; return what came, by client.

        With ``set_up`` devices that were started again take part, else they are silent.
        """
        return self._ask(dict.fromkeys(clients, (step, message)), SumAnswer, set_up)

    def scores(self, clients: Sequence[int], round: int, broadcast: bytes) -> Personal:
        """Return what these clients' own models are worth on their own texts, of who answers."""
        found = self._ask({c: (Question(round=round), broadcast) for c in clients}, Scores)
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
        self,
        questions: Mapping[int, tuple[Content, bytes]],
        kind: type[Content],
        set_up: bool = True,
    ) -> dict[int, Answer | Silence]:
        """Ask clients, by default after setting up those that were started again."""
        end = time.monotonic() + self._patience.answer
        self.roster.refresh(min(GREET_S, self._patience.answer))
        found = self._post_to(questions, kind, self._patience.answer)
        unready = [c for c, each in found.items() if isinstance(each, Silence) and each.unready]
        left = end - time.monotonic()
        if unready and not set_up:
            gone = Silence("the device was started again and has lost its secrets")
            found |= dict.fromkeys(unready, gone)
        elif unready and left > 0:
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
        return found

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


def fate(silence: Silence) -> Fate:
    """Return what the ledger calls a device that did not answer."""
    return "late" if silence.late else "missed"


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
