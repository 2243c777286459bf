"""The two apps that Flower runs: letters go through them, nothing in them knows what they say.

Flower starts a process for every message of a ClientApp and would load a backbone in each; here
both apps hand bytes on to a socket of a process that lives as long as the run. They import neither
torch nor pydantic, so that a message does not wait for either.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import httpx
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from airtune.deploy.flower.pulls import Pulls
from airtune.federation import frames

MOST_BYTES = 1 << 31
_TYPE = "airtune.letter"  # of serialisation: bytes that Flower is not to read
_POST = struct.Struct("<Qd")  # node, seconds until nobody asks for the answer any more


def client_app() -> ClientApp:
    """Return the app of a device: each message goes to the device's own process."""
    app = ClientApp()

    @app.query()
    def carry(message: Message, context: Context) -> Message:
        with socket.socket(socket.AF_UNIX) as device:
            device.connect(str(context.node_config["socket"]))
            frames.send(device, _unwrapped(message) or b"")
            answer = frames.receive(device, MOST_BYTES)
        return Message(_wrapped(answer), reply_to=message)

    return app


def server_app(path: str | None = None) -> ServerApp:
    """Return the app of the server: it does what the serving process asks for, until that ends.

    That listens at ``path``; without one, where the run's setting ``socket`` says.
    """
    app = ServerApp()

    @app.main()
    def relay(grid: Grid, context: Context) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(path or str(context.run_config["socket"]))
            pulls = Pulls(lambda name: _answers(grid, name))
            while True:
                asked = frames.receive(server, MOST_BYTES)
                verb, rest = asked[:1], asked[1:]
                if verb == b"E":
                    return
                for frame in _done(grid, pulls, verb, rest):
                    frames.send(server, frame)

    return app


def _done(grid: Grid, pulls: Pulls[Message | None], verb: bytes, rest: bytes) -> list[bytes]:
    """Return the frames that answer one request of the serving process."""
    if verb == b"N":
        return [json.dumps([str(node) for node in grid.get_node_ids()]).encode()]
    if verb == b"P":
        node, seconds = _POST.unpack_from(rest)
        message = Message(_wrapped(rest[_POST.size :]), node, "query", ttl=seconds)
        (name,) = grid.push_messages([message])
        return [(name or "").encode()]
    if verb == b"G":
        answers: dict[str, bytes | None] = {}
        for name, message in pulls.here(json.loads(rest)).items():
            lost = message is None or message.has_error()
            answers[name] = None if lost else _unwrapped(message)
        index = {name: answer is not None for name, answer in answers.items()}
        return [json.dumps(index).encode(), *(a for a in answers.values() if a is not None)]
    raise ValueError(f"the relay does not know {verb!r}")


def _answers(grid: Grid, name: str) -> list[Message | None]:
    """Return the answer to a message if it is there, None for one that cannot be put together.

    Flower does not ask whether what a device sends answers what it was sent: all else is let go.
    """
    try:
        found = list(grid.pull_messages([name]))
    except httpx.HTTPError:
        raise  # the SuperLink is gone
    except Exception:
        return [None]
    return [each for each in found if each.metadata.reply_to_message_id == name]


def _wrapped(data: bytes) -> RecordDict:
    array = Array(dtype="uint8", shape=(len(data),), stype=_TYPE, data=data)
    return RecordDict({"letter": ArrayRecord({"letter": array})})


def _unwrapped(message: Message) -> bytes | None:
    """Return the letter in a message, None if there is none."""
    try:
        array: Any = message.content["letter"]["letter"]
        return bytes(array.data) if array.stype == _TYPE else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
