"""An experiment's rounds without the learning: what they will cost, before anything trains.

All but the learner is the real thing: model, data, method, cell, rounds, bytes. So whatever a
method does to its messages and grants is in the costs, and links are those that the run will have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from airtune.build import build, rounds
from airtune.experiment import Experiment
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.records import LedgerRow
from airtune.learning.learner import Learner
from airtune.methods.method import Method
from airtune.methods.views import State
from airtune.planning.understudy import Understudy

_UPLOADS = 1000  # rehearsed at most
_LEAST_ROUNDS = 10  # but never fewer rounds than these


class _Asked:
    """Clients who are charged for the data that they would make."""

    def __init__(self, inner: Federation, method: Method) -> None:
        self._inner, self._method = inner, method

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Carry out the orders; what is drawn and then learned from is as the method plans it."""
        replies = self._inner.exchange(orders)
        works = [self._method.work(order.round) for order in orders]
        return [
            replace(
                reply,
                tokens=reply.tokens + work.made_tokens,
                predicted_tokens=reply.predicted_tokens + work.drawn_tokens,
            )
            for reply, work in zip(replies, works, strict=True)
        ]


def rounds_of(experiment: Experiment, uploads: int = _UPLOADS) -> int:
    """Return how many rounds are rehearsed: all, or those with so many uploads."""
    asked = experiment.clients.asked
    return min(experiment.train.rounds, max(_LEAST_ROUNDS, uploads // asked))


def rehearse(experiment: Experiment, count: int, trains: bool = False) -> list[LedgerRow]:
    """Return the ledger of an experiment's first rounds, in which nothing is learned.

    With ``trains`` it is: a run's rounds without its evaluation. Raises UserError as a run would.
    """
    parts = build(experiment, learns=Learner if trains else Understudy)
    clients = parts.clients if trains else _Asked(parts.clients, parts.method)
    runner = rounds(parts, clients)
    state: State = parts.method.start()
    rows: list[LedgerRow] = []
    for number in range(1, min(count, experiment.train.rounds) + 1):
        outcome = runner.run(state, number)
        state = outcome.state
        rows += [*outcome.messages, outcome.totals]
    return rows
