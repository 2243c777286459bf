"""Clients on machines of their own: orders go to all of them at once, replies come or do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.federation.contents import (
    Done,
    Inquired,
    Inquiry,
    Question,
    Ready,
    Scores,
    Start,
    SumAnswer,
    SumStep,
    Task,
)
from airtune.federation.devices import GREET_S, Devices, Patience
from airtune.federation.evaluation import Personal, ServerEvaluator
from airtune.federation.interface import Fate, Order, Reply, Took
from airtune.federation.letters import MOST_BYTES
from airtune.federation.measuring import MeasuredCell
from airtune.federation.post import Answer, Carrier, Silence
from airtune.federation.roster import Roster
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Learner
from airtune.methods.method import Method
from airtune.methods.views import State


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
        self._devices = Devices(carrier, run, count, patience, say, most_bytes)
        self._patience = patience
        self._settled = self._round = 0

    @property
    def roster(self) -> Roster:
        """Which device is which client."""
        return self._devices.roster

    @property
    def _limit(self) -> float:
        """Seconds for an exchange of a round."""
        return self._patience.round or self._patience.answer

    def gather(self) -> None:
        """Wait for the devices; raise UserError if they do not come."""
        self.roster.gather(self._patience.devices, min(GREET_S, self._patience.devices))

    def measure(self, cell: MeasuredCell) -> None:
        """Let ``cell`` hear what devices report of their links."""
        self._devices.cell = cell
        cell.listen = self._devices.listen

    def start(
        self, starts: Callable[[int], tuple[Start, bytes]], sketches: Sequence[str]
    ) -> dict[int, Ready]:
        """Set all devices up; return what they said of themselves, by client.

        ``starts`` returns a client's start and the public texts, ``sketches`` are those of the
        clients' models: client i has number i mod count. Raises UserError where a device cannot
        take part that none of the rounds could do without: planning needs to know all of them.
        """
        self._devices.starts, self._devices.sketches = starts, sketches
        clients = range(len(self.roster.members))
        silent = self._devices.set_up([client for client in clients if self.roster.node(client)])
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
        found = self._devices.ask(questions, Done, self._limit, set_up=boxes is None)
        replies = []
        for order in orders:
            each = found[order.client]
            if isinstance(each, Answer):
                replies.append(each.content.reply(order.client, each.body, each.seconds))
            else:
                reply = Reply(order.client, None, None, 0, each.reason, fate=fate(each))
                waited = self._limit if each.late and not each.busy else 0.0
                replies.append(replace(reply, took=Took(waited, 0.0)))
        self._report(found, orders)
        return replies

    def sound(self) -> None:
        """Ask how what devices sent to sound their links went.

        Raises UserError where none of them measures its link.
        """
        cell = self._devices.cell
        assert cell is not None
        clients = [c for c in range(len(self.roster.members)) if self.roster.node(c)]
        asked = {client: (Inquiry(), b"") for client in clients}
        for client, each in self._devices.post_to(asked, Inquired, self._patience.answer).items():
            if isinstance(each, Answer):
                cell.asked_idly(client, each.seconds)
        if not any(cell.is_known(client) for client in clients):
            raise UserError(
                "cell.measured: no device measures its link; those that airtune join starts do."
            )

    def sum_step(
        self, step: SumStep, clients: Iterable[int], message: bytes, set_up: bool = False
    ) -> dict[int, Answer | Silence]:
        """Ask for a step of a masked sum; return what came, by client.

        With ``set_up`` devices that were started again take part, else they are silent.
        """
        return self._devices.ask(
            dict.fromkeys(clients, (step, message)), SumAnswer, self._limit, set_up
        )

    def scores(self, clients: Sequence[int], round: int, broadcast: bytes) -> Personal:
        """Return what these clients' own models are worth on their own texts, of who answers."""
        asked = {c: (Question(round=round), broadcast) for c in clients}
        found = self._devices.ask(asked, Scores, self._patience.answer)
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

    def _report(self, found: Mapping[int, Answer | Silence], orders: Sequence[Order]) -> None:
        """Note how long a round's exchanges took, after what their answers say of earlier ones."""
        cell = self._devices.cell
        if cell is None:
            return
        for order in orders:
            client, each = order.client, found[order.client]
            if isinstance(each, Answer):
                cell.took(client, self._round, each.seconds)
            elif not isinstance(each.owed, Task):
                continue  # who is being set up, or asked something else, sends nothing up
            elif each.busy:
                cell.still_out(client, each.seconds)
            else:
                cell.gave_up(client, self._round, each.seconds, order.grant.bits)


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
