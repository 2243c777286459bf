"""Which client of the cell a Flower node is.

Flower draws a node's id anew whenever it registers, so places in the cell belong to partitions.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from airtune.deploy.flower.pushes import push_all
from airtune.deploy.flower.sizes import number
from airtune.errors import UserError

_KEY = "partition-id"
_ACTION = "partition_id"
_PATIENCE_S = 120.0  # a SuperNode starts a process for the question, and imports the app in it
_RAISED = 2  # Flower's code for an app that raised, as it does without a function for a query


def tell_partition(app: ClientApp) -> ClientApp:
    """Let an app tell ``AirGrid`` the ``partition-id`` of its node; one line in a ClientApp."""

    @app.query(_ACTION)
    def tell(message: Message, context: Context) -> Message:
        told = ConfigRecord({_KEY: int(context.node_config[_KEY])})
        return Message(RecordDict({"node": told}), reply_to=message)

    return app


class Partitions:
    """Nodes by client: as given, as the nodes themselves tell, or else by ascending node id.

    The question is asked once of each node, outside the air: it costs neither simulated seconds nor
    bits. Nodes that do not answer are left out and asked again. Without answers from any app the
    places in the cell are those of random ids, and differ from run to run: a warning says so.
    """

    def __init__(
        self, grid: Grid, count: int, given: Mapping[int, int] | None, poll_s: float
    ) -> None:
        self._grid, self._count, self._poll_s = grid, count, poll_s
        self._given = given is not None
        self._clients: dict[int, int] = {}
        self._nodes: dict[int, int] = {}  # client -> its newest node
        self._unasked = False
        for node, client in (given or {}).items():
            self._enter(node, client)

    def listed(self, nodes: Iterable[int]) -> list[int]:
        """Return those of the nodes that are clients, by ascending client.

        A device that registers again is a new node: the old one is left out.
        """
        here = set(nodes)
        self._meet(sorted(here - self._clients.keys()))
        return [node for _, node in sorted(self._nodes.items()) if node in here]

    def client(self, node: int) -> int:
        """Return a node's client; raise UserError if it is none."""
        if node not in self._clients:
            self._meet([node])
        if node not in self._clients:
            raise UserError(f"node {node} is asked, and nobody says which client of the cell it is")
        return self._clients[node]

    def _meet(self, nodes: list[int]) -> None:
        if self._given or not nodes:
            return
        told, mute = ({}, nodes) if self._unasked else self._told(nodes)
        if mute and (told or self._clients) and not self._unasked:
            raise UserError(
                f"node {mute[0]} does not tell its partition-id, while others do; put "
                "tell_partition(app) into its ClientApp."
            )
        for node, client in sorted(told.items()):
            if client in self._nodes and self._nodes[client] in told:
                raise UserError(
                    f"nodes {self._nodes[client]} and {node} both have partition-id {client}; "
                    "give each SuperNode its own."
                )
            self._enter(node, client)
        if mute and not self._unasked:
            warnings.warn(
                "no node tells its partition-id, so places in the cell go by node ids and differ "
                "from run to run; put tell_partition(app) into the ClientApp.",
                stacklevel=4,
            )
            self._unasked = True
        for node in mute:
            self._enter(node, len(self._clients))

    def _told(self, nodes: list[int]) -> tuple[dict[int, int], list[int]]:
        """Return the clients that nodes say they are, and the nodes whose app does not know."""
        questions = [Message(RecordDict(), node, f"query.{_ACTION}") for node in nodes]
        waiting = {
            name: node
            for name, node in zip(push_all(self._grid, questions), nodes, strict=True)
            if name is not None
        }
        told: dict[int, int] = {}
        mute: list[int] = []
        end = time.monotonic() + _PATIENCE_S
        while waiting:
            for reply in self._grid.pull_messages(sorted(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is None:
                    continue
                found = None if reply.has_error() else number(reply.content, _KEY)
                if found is not None:
                    told[node] = int(found)
                elif not reply.has_error() or reply.error.code == _RAISED:
                    mute.append(node)
            if not waiting or time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        return told, sorted(mute)

    def _enter(self, node: int, client: int) -> None:
        if not 0 <= client < self._count:
            raise UserError(
                f"node {node} is client {client}, but the cell has {self._count}, from 0 on; "
                "make the cell for as many clients as there are partitions."
            )
        self._clients[node] = client
        self._nodes[client] = node
