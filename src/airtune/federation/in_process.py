"""Clients that live in this process, trained side by side; one alone is a real device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from airtune.federation.client_states import ClientStates
from airtune.federation.interface import Order, Reply
from airtune.learning.adapter import Adapter
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Assignment, Learner
from airtune.methods.method import Method
from airtune.methods.views import Client, State
from airtune.wire import Payload, decode, encode


class ClientData(Protocol):
    """Whose rows are whose, without an object for every client."""

    def __len__(self) -> int: ...

    def __getitem__(self, client: int, /) -> Examples: ...


@dataclass(frozen=True)
class Kind:
    """Clients that have the same model: what trains it, and the texts in its tokens.

    ``data`` [clients] is for all clients, whoever has this model; ``pool`` are all private rows,
    ``test`` the global test set.
    """

    learner: Learner
    data: ClientData
    pool: Examples
    public: Examples
    test: Examples


class States(Protocol):
    """What clients keep between rounds."""

    def __contains__(self, client: int, /) -> bool: ...

    def get(self, client: int, /) -> State:
        """Return a copy of a client's state, empty if it has none."""
        ...

    def put(self, client: int, state: State, /) -> None:
        """Keep a client's new state."""
        ...


class LocalClients:
    """Clients' data, state and work; nothing leaves it but the bytes of their uploads."""

    states: States

    def __init__(self, method: Method, kinds: Sequence[Kind], states: States) -> None:
        """Client i is of kind number i mod count."""
        self._method, self.kinds, self.states = method, kinds, states
        self._heard: tuple[bytes, Payload] | None = None

    @property
    def data(self) -> ClientData:
        """What each client learns from, in the first model's tokens."""
        return self.kinds[0].data

    def kind(self, client: int) -> Kind:
        """Return what a client computes with."""
        return self.kinds[client % len(self.kinds)]

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Receive, train and answer for every order."""
        replies: dict[int, Reply] = {}
        for number, kind in enumerate(self.kinds):
            own = [order for order in orders if order.client % len(self.kinds) == number]
            replies |= self._exchange(kind.learner, own) if own else {}
        return [replies[order.client] for order in orders]

    def _exchange(self, learner: Learner, orders: Sequence[Order]) -> dict[int, Reply]:
        clients = {
            o.client: self._client(o.client, o.round, self._decode(o.message)) for o in orders
        }
        by_client = {order.client: order for order in orders}
        tasks = [
            Assignment(
                client.index,
                client.round,
                client.adapter,
                self._method.phases(client),
                client.moments,
            )
            for client in clients.values()
        ]
        replies = {}
        for cohort in learner.train(tasks):
            for task in cohort:
                # What was learned goes as soon as it is answered: adapters of one cohort are held.
                client = clients.pop(task.client)
                replies[task.client] = self._answer(by_client[task.client], client, task)
                task.adapter = {}
        return replies

    def personal_adapter(self, client: int, round: int, message: bytes) -> Adapter:
        """Return the adapter that a client would use if it heard this broadcast now."""
        return self._method.personal(self._client(client, round, self._decode(message)))

    def _decode(self, message: bytes) -> Payload:
        """Read a broadcast, once for all who hear it."""
        if self._heard is None or self._heard[0] != message:
            self._heard = message, decode(message, self._method.downlink_shapes())
        return self._heard[1]

    def _client(self, index: int, round: int, payload: Payload) -> Client:
        # The state is a copy, kept only once the round went well: a broken update must not live on.
        kind = self.kind(index)
        initial = dict(kind.learner.model.initial)
        client = Client(
            index,
            round,
            kind.data[index],
            initial,
            kind.public,
            kind.learner,
            heard=payload,
            state=self.states.get(index),
        )
        self._method.receive(client, payload)
        return client

    def _answer(self, order: Order, client: Client, task: Assignment) -> Reply:
        if task.diverged:
            problem = "training loss was not finite"
            looked = client.predicted_tokens + task.predicted_tokens
            return Reply(order.client, None, None, task.tokens, problem, True, looked)
        client.adapter, client.moments, client.made = task.adapter, task.moments, task.made
        client.predicted_tokens += task.predicted_tokens
        payload = self._method.upload(client, order.grant)
        if client.state or order.client in self.states:
            self.states.put(order.client, client.state)
        reply = Reply(
            order.client,
            None,
            task.loss,
            task.tokens,
            predicted_tokens=client.predicted_tokens,
            notes=client.notes,
            gradient_norm=task.gradient_norm,
        )
        if payload is None:
            return replace(reply, problem=client.problem or "nothing to send")
        message = encode(payload)
        if 8 * len(message) > order.grant.bits:
            problem = f"payload of {8 * len(message)} bits exceeds the grant"
            return replace(reply, problem=problem)
        return replace(reply, message=message)


class InProcess(LocalClients):
    """All clients of an experiment, their states in memory and in files of the run directory."""

    states: ClientStates

    def __init__(self, method: Method, kinds: Sequence[Kind], memory_bytes: float = 1e9) -> None:
        """``memory_bytes`` are for states; the rest goes to files."""
        super().__init__(method, kinds, ClientStates(memory_bytes))

    def open(self, folder: Path, index: Tensor | None) -> None:
        """Keep client states in ``folder``; ``index`` is that of the checkpoint to go on from."""
        self.states.open(folder, index)

    def write(self) -> Tensor:
        """Write what changed; return the index for the checkpoint."""
        return self.states.write()

    def clean(self) -> None:
        """Remove files that the last index does not name."""
        self.states.clean()
