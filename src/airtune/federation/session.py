"""A run from its first round to its last, stoppable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airtune.errors import UserError
from airtune.federation import checkpoint
from airtune.federation.evaluation import Personal, Score, ServerEvaluator
from airtune.federation.in_process import InProcess
from airtune.federation.interface import Clients
from airtune.federation.ledger import Ledger, read
from airtune.federation.records import RoundRow
from airtune.federation.round import RoundRunner
from airtune.learning.adapter import Adapter
from airtune.learning.config import Task
from airtune.methods.method import Method
from airtune.scheduling.plan import Plan
from airtune.wire import encode


class Session:
    """The server's side of an experiment, its ledger and its checkpoints."""

    def __init__(
        self,
        folder: Path,
        method: Method,
        clients: Clients,
        runner: RoundRunner,
        evaluator: ServerEvaluator,
        task: Task,
        checkpoint_every: int,
    ) -> None:
        """Continue from the checkpoint in ``folder`` if there is one."""
        self._method, self._clients, self._runner = method, clients, runner
        self._evaluator, self._task = evaluator, task
        self._checkpoint, self._every = (
            folder / "checkpoint" / "state.safetensors",
            checkpoint_every,
        )
        self._total = method.setup.train.rounds
        saved = checkpoint.load(self._checkpoint)
        self.round = -1 if saved is None else int(saved["round"])
        self.wall_seconds = 0.0 if saved is None else float(saved["wall_seconds"])
        self.personal: Personal = {} if saved is None else saved["personal"]
        self.untrained: Personal = {} if saved is None else saved["untrained"]
        self.scores: dict[str, float] = {} if saved is None else saved["scores"]
        self._state = method.start() if saved is None else saved["state"]
        clients.open(folder / "checkpoint" / "clients", None if saved is None else saved["clients"])
        runner.clock.now = 0.0 if saved is None else saved["now"]
        self._ledger = Ledger(folder / "ledger.jsonl", 0 if saved is None else saved["ledger"])
        if runner.measured is not None:
            runner.measured.recall(read(folder / "ledger.jsonl"))

    @property
    def facts(self) -> dict[str, Any]:
        """What the method says of the run."""
        return self._method.facts(self._state, self._evaluator.clients_test)

    @property
    def files(self) -> dict[str, bytes]:
        """What the method would have kept of the run, by relative path."""
        return self._method.files(self._state)

    @property
    def adapter(self) -> Adapter:
        """The server's model as it is now."""
        return self._method.model(self._state)

    def rounds(self) -> Iterator[RoundRow]:
        """Run what is left of the experiment, yielding each round when it is safely on disk.

        Round 0 is the untrained model.
        """
        started, before = time.perf_counter(), self.wall_seconds
        while self.round < self._total:
            self.round += 1
            if self.round == 0:
                plan = Plan(0, {}, {})
                totals, messages = RoundRow(0), []
            else:
                outcome = self._runner.run(self._state, self.round)
                self._state, plan = outcome.state, outcome.plan
                totals, messages = outcome.totals, outcome.messages
            if self._is_evaluated():
                self._score(totals, plan)
            measured = self._runner.measured
            reported = [] if measured is None else measured.rows()
            self._ledger.append([*messages, *reported, totals])
            self.wall_seconds = before + time.perf_counter() - started
            if self.round % self._every == 0 or self.round == self._total:
                self._save()
            yield totals

    def _is_evaluated(self) -> bool:
        every = self._method.setup.train.evaluate_every
        return self.round % every == 0 or self.round == self._total

    def _score(self, totals: RoundRow, plan: Plan) -> None:
        message = encode(self._method.broadcast(self._state, plan))
        score: Score = self._evaluator.score(self.adapter, message, self.round, self._state)
        totals.accuracy, totals.loss = score.accuracy, score.loss
        totals.personal_accuracy = score.mean("accuracy")
        totals.personal_loss = score.mean("loss")
        totals.scores = self.scores = score.scores
        totals.personal_global_accuracy = score.personal_global_accuracy
        if self._task == "causal":
            totals.perplexity = math.exp(min(score.loss, 700.0))
        self.personal = score.personal
        if self.round == 0:
            self.untrained = score.personal

    def _save(self) -> None:
        clients = self._clients.write()
        checkpoint.save(
            self._checkpoint,
            {
                "round": self.round,
                "now": self._runner.clock.now,
                "ledger": self._ledger.size,
                "wall_seconds": self.wall_seconds,
                "personal": self.personal,
                "untrained": self.untrained,
                "scores": self.scores,
                "state": self._state,
                "clients": clients,
            },
        )
        self._clients.clean()


def personal_adapter(folder: Path, method: Method, clients: InProcess, client: int) -> Adapter:
    """Return the model that a client would use after the last checkpoint in a run directory.

    Nothing is written there. Raises UserError where there is no checkpoint.
    """
    path = folder / "checkpoint" / "state.safetensors"
    saved = checkpoint.load(path)
    if saved is None:
        raise UserError(
            f"--client: '{path}' is missing, and with it what clients keep; copy the whole run "
            "directory, or leave --client out for the server's model."
        )
    clients.states.read_from(folder / "checkpoint" / "clients", saved["clients"])
    message = encode(method.broadcast(saved["state"], Plan(saved["round"], {}, {})))
    return clients.personal_adapter(client, saved["round"], message)
