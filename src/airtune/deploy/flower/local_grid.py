"""A Flower grid in this process: an app can be tried and tested without SuperLink or SuperNodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from airtune.keyed import integer

# Flower's codes, as its SuperNode and SuperLink use them.
_RAISED, _UNAVAILABLE = 2, 3


class LocalGrid(Grid):
    """Runs a ClientApp, one message at a time, when its reply is pulled.

    Every message is written to Flower's bytes and read again on both ways, so that no two parties
    share an array. What the app raises, and names that are unknown or were pulled before, become
    the error replies that a SuperLink gives. Each node keeps its context between messages.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: int | Sequence[Mapping[str, Any]],
        run_config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        """Set up; ``nodes`` are their number, with a partition each, or the config of each.

        ``seed`` draws the node ids, which mean as little as a SuperLink's.
        """
        if isinstance(nodes, int):
            nodes = [{"partition-id": k, "num-partitions": nodes} for k in range(nodes)]
        try:
            run_id = TaskIdentity.run_id
        except RuntimeError:
            # Flower's processes know who they are; messages cannot be made otherwise.
            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
            run_id = 1
        self._app, self._run, self._named = app, None, 0
        self._contexts = {
            node: Context(run_id, node, dict(config), RecordDict(), dict(run_config or {}))
            for k, config in enumerate(nodes)
            for node in [integer(seed, "flower-node", k)]
        }
        self._queue: deque[Message] = deque()
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, in the order of their ids as a SuperLink's is: any."""
        return sorted(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages; None stands for those to nodes that do not exist."""
        names: list[Any] = []
        for message in messages:
            if message.metadata.dst_node_id not in self._contexts:
                names.append(None)
                continue
            self._named += 1
            name = f"local-{self._named}"
            message.metadata.__dict__["_message_id"] = name
            self._queue.append(_copy(message))
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run what is queued up to the last message asked for; return the replies."""
        names = list(dict.fromkeys(message_ids))
        queued = {message.metadata.message_id for message in self._queue}
        while queued.intersection(names):
            message = self._queue.popleft()
            queued.discard(message.metadata.message_id)
            self._replies[message.metadata.message_id] = _copy(self._reply(message))
        return [self._replies.pop(name) if name in self._replies else _gone(name) for name in names]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return their replies; nothing is waited for."""
        return self.pull_messages([name for name in self.push_messages(messages) if name])

    def set_run(self, run: Any) -> None:
        """Keep the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run that was set, None without one."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def _reply(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # whatever an app raises is that node's affair
            return Message(Error(_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)


def _copy(message: Message) -> Message:
    """Return a message as the wire brings it, with the name that Flower keeps beside it."""
    objects = get_all_nested_objects(message)
    data = {name: each.deflate() for name, each in objects.items()}
    copied: Message = inflate_object_from_contents(message.object_id, data)
    copied.metadata.__dict__["_message_id"] = message.metadata.message_id
    return copied


def _gone(name: str) -> Message:
    asked = Message(RecordDict(), 0, "query")
    asked.metadata.__dict__["_message_id"] = name
    return Message(Error(_UNAVAILABLE, "the message is unknown or was pulled"), reply_to=asked)
