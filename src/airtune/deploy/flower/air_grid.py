"""A Flower grid whose messages go through our cell: bits, seconds, joules, loss and deadlines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import ArrayLike

from airtune.deploy.flower.partitions import Partitions
from airtune.deploy.flower.pushes import Push
from airtune.errors import UserError
from airtune.federation.records import LedgerRow, as_dict
from airtune.radio.air import Air
from airtune.radio.cell import Cell

if TYPE_CHECKING:
    import pandas as pd


class AirGrid(Grid):
    """Wraps any Flower grid: an app's messages go over the links of ``cell``, in simulated time.

    Each push is an exchange (``exchange.py``): a downlink to the nodes that are asked, an uplink of
    each reply, in the cell's next round. Who is out of reach or misses the downlink never gets the
    message. Messages that were not carried, or not by the deadline, come back as Flower's error
    replies of code ``LOST_ON_AIR``, which its strategies leave out. Replies wait until all of their
    push are there, so what they cost depends neither on the backend nor on wall time, and are
    handed over by simulated arrival. Each push has the whole uplink band: where pushes overlap,
    that they would share it is left out. A link is modelled here, not measured.
    """

    def __init__(
        self,
        grid: Grid,
        cell: Cell,
        *,
        clients: Mapping[int, int] | None = None,
        compute_seconds: ArrayLike = 0.0,
        compute_metric: str = "compute-seconds",
        poll_s: float = 0.05,
    ) -> None:
        """Wrap ``grid``.

        ``clients`` maps node ids to clients of the cell; without it nodes are asked
        (``tell_partition``). A client's computing takes what its reply says in ``compute_metric``,
        else ``compute_seconds``, one number or one for each client. ``poll_s`` is wall time between
        looks for replies. Raises UserError for seconds that do not fit.
        """
        count = cell.distance_m.size
        try:
            given = np.broadcast_to(np.asarray(compute_seconds, dtype=np.float64), (count,))
        except ValueError as error:
            raise UserError(f"compute_seconds: one number, or {count}, one a client.") from error
        if not (np.isfinite(given) & (given >= 0.0)).all():
            raise UserError("compute_seconds: seconds are finite and not negative.")
        if not poll_s > 0.0:
            raise UserError("poll_s: must be more than 0 seconds.")
        self.now = 0.0
        self.rows: list[LedgerRow] = []
        self._grid, self._cell, self._air = grid, cell, Air(cell.config, cell.seed)
        self._partitions = Partitions(grid, count, clients, poll_s)
        self._compute, self._metric, self._poll_s = given, compute_metric, poll_s
        self._pushes, self._written = 0, 0.0
        self._homes: dict[str, Push] = {}  # a message's name -> its push

    @property
    def history(self) -> pd.DataFrame:
        """One row for each finished push: bits, seconds, joules, and their running totals."""
        from airtune.federation import ledger

        return ledger.history(self._dicts())

    @property
    def uploads(self) -> pd.DataFrame:
        """One row for each message of the finished pushes, with its status and costs."""
        from airtune.federation import ledger

        return ledger.uploads(self._dicts())

    def save(self, path: str | Path) -> None:
        """Write what finished pushes cost to ``path``, as the ledger of a run is written."""
        from airtune.federation import ledger

        try:
            ledger.Ledger(Path(path)).append(self.rows)
        except OSError as error:
            raise UserError(f"'{path}' cannot be written ({error.strerror}).") from error

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are clients of the cell, by client: samplers begin with that."""
        return self._partitions.listed(self._grid.get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages down; return a name for each, also for those that will not get there.

        Raises UserError if a node is no client of the cell, or gets two messages at once.
        """
        messages = list(messages)
        return [] if not messages else list(self._pushed(messages).posts)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there in simulated time, in the order of their arrival.

        If none of those asked for is, time goes on until one is. Nothing comes, and no time passes,
        while the wrapped grid lacks a reply to any message pushed along with those asked for.
        """
        names = dict.fromkeys(message_ids)
        here = [name for name in names if name in self._homes]
        elsewhere = [name for name in names if name not in self._homes]
        # Flower has its own answer to names that nobody knows, or whose reply was had.
        strange = list(self._grid.pull_messages(elsewhere)) if elsewhere else []
        pushes = {self._homes[name].exchange.number: self._homes[name] for name in here}
        if not here or not all(push.fetch() for push in pushes.values()):
            return strange
        for push in pushes.values():
            push.settle(self._compute, self._metric)
        first = max(self.now, min(self._homes[name].posts[name].at for name in here))
        due = [name for name in here if self._homes[name].posts[name].at <= first]
        return strange + self._handed(due)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies by simulated arrival; the clock goes to the last.

        ``timeout`` is wall time, as everywhere in Flower: replies that the wrapped grid does not
        have by then are left out, and the ledger calls them withheld.
        """
        messages = list(messages)
        if not messages:
            return []
        push = self._pushed(messages)
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not push.fetch() and time.monotonic() < end:
            time.sleep(self._poll_s)
        push.settle(self._compute, self._metric)
        return self._handed(list(push.posts))

    def _pushed(self, messages: list[Message]) -> Push:
        clients = [self._partitions.client(each.metadata.dst_node_id) for each in messages]
        if len(set(clients)) < len(clients):
            raise UserError("a node gets two messages in one push; push one after the other.")
        self._pushes += 1
        push = Push(self._grid, self._cell, self._air, self._pushes, self.now, messages, clients)
        self._homes.update(dict.fromkeys(push.posts, push))
        return push

    def _handed(self, names: list[str]) -> list[Message]:
        """Return the replies to these by arrival, move the clock, and write what is finished."""
        pushes = [self._homes.pop(name) for name in names]
        posts = [push.posts.pop(name) for push, name in zip(pushes, names, strict=True)]
        # The order of names is the app's, and may be a set's.
        posts.sort(key=lambda post: (post.at, post.place))
        self.now = max([self.now, *(post.at for post in posts)])
        numbered = {push.exchange.number: push for push in pushes}
        for _, push in sorted(numbered.items()):
            if not push.posts:
                self.rows += push.rows(self.now - self._written)
                self._written = self.now
        return [post.reply for post in posts if post.reply is not None]

    def _dicts(self) -> list[dict[str, Any]]:
        if not self.rows:
            raise UserError("no push has finished yet, so nothing has a cost.")
        return [as_dict(row) for row in self.rows]

    def get_nodes(self) -> Iterable[Any]:
        """Return what Flower knows of the nodes that are clients, by client."""
        nodes = {node.node_id: node for node in self._grid.get_nodes()}
        return [nodes[name] for name in self._partitions.listed(nodes)]

    def set_run(self, run: Any) -> None:
        """Set the run of the wrapped grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The wrapped grid's run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message as the wrapped grid does."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)
