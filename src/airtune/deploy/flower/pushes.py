"""Messages that were pushed together: their exchange on the air, and Flower's replies to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from airtune.deploy.flower.exchange import Answer, Cast, Exchange
from airtune.deploy.flower.sizes import data_bits, digest, number
from airtune.federation.records import LedgerRow
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.units import Floats

# Beside Flower's own codes, which count from 0: a message that the air did not carry.
LOST_ON_AIR = 1000


@dataclass
class Post:
    """One message that was pushed; ``at`` is when its reply is there, once that is known.

    ``place`` is its own among all that were pushed.
    """

    place: tuple[int, int]
    client: int
    message: Message
    problem: str | None = None
    reply: Message | None = None
    at: float = math.nan


class Push:
    """Messages to ``clients`` [n], pushed at ``now``; ``posts`` by name until handed over."""

    def __init__(
        self,
        grid: Grid,
        cell: Cell,
        air: Air,
        index: int,
        now: float,
        messages: Sequence[Message],
        clients: Sequence[int],
    ) -> None:
        """Send them down the links of the cell's round ``index``, and on to those who heard."""
        first = messages[0]
        casts, kind = _casts(messages, clients), first.metadata.message_type
        self.exchange = Exchange(cell, air, index, now, casts, kind)
        self.posts: dict[str, Post] = {}
        self._grid, self._settled = grid, False
        self._waiting: set[str] = set()  # Flower has no answer to these yet
        server_round = number(first.content, "server-round")
        self._notes = {} if server_round is None else {"server_round": server_round}
        heard = set(self.exchange.heard)
        sent = [m for c, m in zip(clients, messages, strict=True) if c in heard]
        names = iter(push_all(grid, sent))
        for k, (client, message) in enumerate(zip(clients, messages, strict=True)):
            name = next(names) if client in heard else None
            if name is not None:
                self._waiting.add(name)
                self.posts[name] = Post((index, k), client, message)
                continue
            problem = "Flower did not take the message" if client in heard else None
            name = f"air-{index}-{client}"
            # As Flower's own grids name what they push; a reply refers to it.
            message.metadata.__dict__["_message_id"] = name
            self.posts[name] = Post((index, k), client, message, problem)

    def fetch(self) -> bool:
        """Take what Flower has; return whether that is all."""
        if self._waiting:
            for reply in self._grid.pull_messages(sorted(self._waiting)):
                name = reply.metadata.reply_to_message_id
                if name in self._waiting:
                    self._waiting.remove(name)
                    self.posts[name].reply = reply
        return not self._waiting

    def settle(self, compute_seconds: Floats, metric: str) -> None:
        """Send up what is here and make error replies of what does not get through; once.

        A client computes for the seconds in its reply's ``metric``, else its ``compute_seconds``.
        """
        if self._settled:
            return
        self._settled = True
        heard = set(self.exchange.heard)
        self.exchange.settle(
            {
                post.client: _answer(post, float(compute_seconds[post.client]), metric)
                for post in self.posts.values()
                if post.client in heard
            }
        )
        for post in self.posts.values():
            fate = self.exchange.fates[post.client]
            post.at = fate.at
            if post.problem or fate.status not in ("delivered", "withheld"):
                error = Error(LOST_ON_AIR, f"{fate.status}: {fate.reason}")
                post.reply = Message(error, reply_to=post.message)

    def rows(self, seconds: float) -> list[LedgerRow]:
        """Return the ledger's rows, the clock having moved by ``seconds``."""
        return self.exchange.rows(seconds, self._notes)


def push_all(grid: Grid, messages: Sequence[Message]) -> list[str | None]:
    """Push messages; return a name for each, None for what Flower did not take."""
    if not messages:
        return []
    names: list[str | None] = list(grid.push_messages(messages))
    if len(names) == len(messages):
        return names
    # A grid may leave out what it refuses, but it names every message before.
    own = [str(message.metadata.message_id) for message in messages]
    return [name if name in names else None for name in own]


def _casts(messages: Sequence[Message], clients: Iterable[int]) -> list[Cast]:
    """Return one broadcast for each distinct content, in the order of the messages."""
    contents: dict[int, RecordDict] = {id(each.content): each.content for each in messages}
    prints = {key: digest(content) for key, content in contents.items()}
    casts: dict[bytes, Cast] = {}
    for client, message in zip(clients, messages, strict=True):
        same = prints[id(message.content)]
        casts.setdefault(same, Cast(data_bits(message.content), [])).clients.append(client)
    return list(casts.values())


def _answer(post: Post, seconds: float, metric: str) -> Answer:
    if post.reply is None:
        return Answer(None, seconds, post.problem or "did not answer in time")
    if post.reply.has_error():
        return Answer(None, seconds, post.reply.error.reason)
    told = number(post.reply.content, metric)
    # A client's word: one that cannot be is no reason to stop everybody.
    if told is not None and math.isfinite(told) and told >= 0.0:
        seconds = told
    return Answer(data_bits(post.reply.content), seconds)
