"""Clients that live in this process, trained side by side; one alone is a real device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from airtune.federation.client_states import ClientStates
from airtune.federation.interface import Order, Reply
from airtune.learning.adapter import Adapter
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Assignment, Learner
from airtune.methods.method import Client, Method
from airtune.wire import Payload, decode, encode


class ClientData(Protocol):
    """Whose rows are whose, without an object for every client."""

    def __len__(self) -> int: ...

    def __getitem__(self, client: int, /) -> Examples: ...


class InProcess:
    """Clients' data, state and work; nothing leaves it but the bytes of their uploads."""

    def __init__(
        self, method: Method, learner: Learner, data: ClientData, memory_bytes: float = 1e9
    ) -> None:
        """Hold ``data`` [clients], what each client learns from."""
        self._method, self._learner, self.data = method, learner, data
        self.states = ClientStates(memory_bytes)

    def open(self, folder: Path, index: Tensor | None) -> None:
        """Keep client states in ``folder``; ``index`` is that of the checkpoint to go on from."""
        self.states.open(folder, index)

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Receive, train and answer for every order."""
        heard: dict[bytes, Payload] = {}
        clients, by_client = {}, {order.client: order for order in orders}
        for order in orders:
            if order.message not in heard:
                heard[order.message] = self._decode(order.message)
            clients[order.client] = self._client(order.client, order.round, heard[order.message])
        tasks = [
            Assignment(client.index, client.round, client.adapter, self._method.phases(client))
            for client in clients.values()
        ]
        replies = {}
        for cohort in self._learner.train(tasks):
            for task in cohort:
                # What was learned goes as soon as it is answered: adapters of one cohort are held.
                client = clients.pop(task.client)
                replies[task.client] = self._answer(by_client[task.client], client, task)
                task.adapter = {}
        return [replies[order.client] for order in orders]

    def personal_adapter(self, client: int, round: int, message: bytes) -> Adapter:
        """Return the adapter that a client would use if it heard this broadcast now."""
        return self._client(client, round, self._decode(message)).adapter

    def _decode(self, message: bytes) -> Payload:
        return decode(message, self._method.downlink_shapes())

    def _client(self, index: int, round: int, payload: Payload) -> Client:
        # The state is a copy, kept only once the round went well: a broken update must not live on.
        initial = dict(self._learner.model.initial)
        client = Client(index, round, self.data[index], initial, self.states.get(index))
        self._method.receive(client, payload)
        return client

    def _answer(self, order: Order, client: Client, task: Assignment) -> Reply:
        if task.diverged:
            problem = "training loss was not finite"
            return Reply(order.client, None, None, task.tokens, problem, diverged=True)
        client.adapter = task.adapter
        payload = self._method.upload(client, order.grant)
        if client.state or order.client in self.states:
            self.states.put(order.client, client.state)
        if payload is None:
            return Reply(order.client, None, task.loss, task.tokens, "nothing to send")
        message = encode(payload)
        if 8 * len(message) > order.grant.bits:
            problem = f"payload of {8 * len(message)} bits exceeds the grant"
            return Reply(order.client, None, task.loss, task.tokens, problem)
        return Reply(order.client, message, task.loss, task.tokens)
