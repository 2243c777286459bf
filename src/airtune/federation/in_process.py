"""Clients that live in this process, trained side by side; one alone is a real device."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from airtune.federation.interface import Order, Reply
from airtune.learning.adapter import Adapter
from airtune.learning.data.examples import Examples
from airtune.learning.learner import Assignment, Learner
from airtune.methods.method import Client, Method, State
from airtune.wire import decode, encode


class InProcess:
    """Clients' data, state and work; nothing leaves it but the bytes of their uploads."""

    def __init__(self, method: Method, learner: Learner, data: Sequence[Examples]) -> None:
        """Hold ``data`` [clients], what each client learns from."""
        self._method, self._learner, self._data = method, learner, data
        self.states: dict[int, State] = {}

    def exchange(self, orders: Sequence[Order]) -> list[Reply]:
        """Receive, train and answer for every order."""
        clients = [self._client(order.client, order.round, order.message) for order in orders]
        tasks = [
            Assignment(client.index, client.round, client.adapter, self._method.phases(client))
            for client in clients
        ]
        self._learner.train(tasks)
        return [
            self._answer(order, client, task)
            for order, client, task in zip(orders, clients, tasks, strict=True)
        ]

    def personal_adapter(self, client: int, round: int, message: bytes) -> Adapter:
        """Return the adapter that a client would use if it heard this broadcast now."""
        return self._client(client, round, message).adapter

    def _client(self, index: int, round: int, message: bytes) -> Client:
        # A copy, kept only once the round went well: a broken update must not live on.
        state = copy.deepcopy(self.states.get(index, {}))
        initial = self._learner.model.initial
        client = Client(index, round, self._data[index], dict(initial), state)
        self._method.receive(client, decode(message, self._method.downlink_shapes()))
        return client

    def _answer(self, order: Order, client: Client, task: Assignment) -> Reply:
        if task.diverged or not _finite(task.adapter):
            problem = "training loss was not finite"
            return Reply(order.client, None, None, task.tokens, problem, diverged=True)
        client.adapter = task.adapter
        payload = self._method.upload(client, order.grant)
        if client.state or order.client in self.states:
            self.states[order.client] = client.state
        if payload is None:
            return Reply(order.client, None, task.loss, task.tokens, "nothing to send")
        message = encode(payload)
        if 8 * len(message) > order.grant.bits:
            problem = f"payload of {8 * len(message)} bits exceeds the grant"
            return Reply(order.client, None, task.loss, task.tokens, problem)
        return Reply(order.client, message, task.loss, task.tokens)


def _finite(adapter: Adapter) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in adapter.values())
