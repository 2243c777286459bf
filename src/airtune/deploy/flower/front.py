"""The door of a served run: what devices need of Flower's server goes through, all else stays out.

Flower answers on one port to devices, to whoever submits runs and lists nodes, and to the programs
that run apps; it asks only devices who they are. So its SuperLink listens on the loopback interface
and this front on the network. TLS ends here, and what goes on goes over TLS again. A request passes
if it is one of a device's; more than a few bytes are read only of a device whose key is known and
signed the request, and never more than a letter's limit of one device between two letters.

It is a program of its own (``door.py`` starts it), so that whoever fills its connections or its
memory does not reach the run. ``python -m airtune.deploy.flower.front SOCKET`` asks there what to
serve, hears of keys and letters, and tells what is to be said.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import ssl
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airtune.federation import frames

_DEVICES = re.compile(r"/v1/fleet/[a-z-]+")
_OBJECT = "/v1/fleet/push-object"
# What a request says of its device, by Flower's names.
PUBLIC_KEY, SIGNATURE, SIGNED = "flwr-public-key", "flwr-signature", "flwr-timestamp"
_SMALL = 1 << 16  # bytes of a request whose sender is not known
_LARGE = 8 << 20  # Flower cuts letters into pieces of 5 MiB
_AROUND = 1 << 20  # what Flower adds to a letter
_IDLE_S = 30
_HANDSHAKE_S = 10.0
_PIECE_S, _ANSWER_S = 60.0, 120.0
_AT_ONCE = 512  # connections
_FILES = 2048  # connections without a handshake, too
_TOLD = 1 << 24  # bytes of what the serving process tells
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"content-length"}


class Front:
    """Passes on requests of devices; ``known`` has their names by keys, as of ``pem``."""

    def __init__(
        self, superlink: int, ca: str, most_bytes: int, say: Callable[[str], None]
    ) -> None:
        """``superlink`` is the port of Flower's server here, whose certificate ``ca`` signed.

        ``most_bytes`` is the most that a device may answer to a letter, ``say`` gets a sentence
        about who answers more.
        """
        self.known: Mapping[bytes, str] = {}
        self._say = say
        self._most = most_bytes + _AROUND
        self._letters = 0
        self._heard: dict[bytes, tuple[int, int]] = {}  # key -> letters sent by then, bytes since
        self._on = httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{superlink}",
            verify=ssl.create_default_context(cafile=ca),
            timeout=httpx.Timeout(_ANSWER_S),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    def sent(self) -> None:
        """Take note that a letter went out, whose answer may come."""
        self._letters += 1

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request (ASGI)."""
        path = scope["path"]
        if scope["method"] != "POST" or not _DEVICES.fullmatch(path) or scope["query_string"]:
            await _answer(send, 404, "only devices are served here")
            return
        device = _signer(scope["headers"], self.known)
        most = _SMALL if device is None else _LARGE
        try:
            body = await _body(scope["headers"], receive, most)
        except (TimeoutError, ConnectionError):
            return
        if body is None:
            await _answer(send, 413, f"at most {most} bytes are read of this request")
            return
        counts = path == _OBJECT or len(body) > _SMALL
        if device is not None and counts and not self._within(device, len(body)):
            await _answer(send, 413, f"at most {self._most} bytes are taken as an answer")
            return
        await self._pass_on(scope, body, send)

    def _within(self, device: bytes, length: int) -> bool:
        """Count what a device sends; return whether it may."""
        letters, before = self._heard.get(device, (self._letters, 0))
        if letters != self._letters:
            before = 0
        self._heard[device] = self._letters, before + length
        if before <= self._most < before + length:
            self._say(
                f"{self.known[device]} answers more than {self._most} bytes, which is not taken"
            )
        return before + length <= self._most

    async def _pass_on(self, scope: Mapping[str, Any], body: bytes, send: Any) -> None:
        headers = [(k, v) for k, v in scope["headers"] if k not in _HOP and k != b"host"]
        asked = self._on.build_request("POST", scope["path"], content=body)
        for name in list(asked.headers):
            if name not in ("host", "content-length"):
                del asked.headers[name]
        asked.headers.update(httpx.Headers(headers))
        try:
            found = await self._on.send(asked, stream=True)
            try:
                parts = [part async for part in found.aiter_raw()]
            finally:
                await found.aclose()
        except httpx.HTTPError:
            await _answer(send, 502, "Flower's server does not answer")
            return
        kept = [(k.lower(), v) for k, v in found.headers.raw if k.lower() not in _HOP]
        await _answer(send, found.status_code, b"".join(parts), kept)


def pem(public_key: Path) -> bytes:
    """Return a device's public key as it stands in what the device sends."""
    key = serialization.load_ssh_public_key(public_key.read_bytes())
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(*form)


def _signer(headers: Collection[tuple[bytes, bytes]], known: Collection[bytes]) -> bytes | None:
    """Return the known key that a request is signed with; Flower checks when, and for whom."""
    said = {name.decode("latin-1"): value for name, value in headers}
    try:
        key = b64decode(said[PUBLIC_KEY], validate=True)
        if key not in known:
            return None
        public = serialization.load_pem_public_key(key)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            return None
        signature = b64decode(said[SIGNATURE], validate=True)
        public.verify(signature, said[SIGNED], ec.ECDSA(hashes.SHA256()))
    except (KeyError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return None
    return key


async def _body(headers: Any, receive: Any, most: int) -> bytes | None:
    """Return a request's body, None if it is longer than ``most``."""
    told = dict(headers).get(b"content-length", b"0")
    if not told.isdigit() or int(told) > most:
        return None
    found = bytearray()
    while True:
        async with asyncio.timeout(_PIECE_S):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        found += message.get("body", b"")
        if len(found) > most:
            return None
        if not message.get("more_body", False):
            return bytes(found)


async def _answer(
    send: Any, status: int, body: str | bytes, headers: Collection[tuple[bytes, bytes]] = ()
) -> None:
    data = body.encode() if isinstance(body, str) else body
    told = [*headers, (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": data})


class _Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


async def _serve(front: Front, told: Mapping[str, Any], ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        front,
        http="h11",  # which bounds headers
        timeout_keep_alive=_IDLE_S,
        host=told["host"],
        port=told["port"],
        ssl_keyfile=told["key"],
        ssl_certfile=told["certificate"],
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=1,
    )
    loop: Any = asyncio.get_running_loop()
    loop.create_server = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_S)
    await _Server(config, ready).serve()


def _listen(line: socket.socket, front: Front) -> None:
    """Take what the serving process tells; end with it."""
    try:
        while True:
            told = json.loads(frames.receive(line, _TOLD))
            if "known" in told:
                front.known = {key.encode(): name for key, name in told["known"].items()}
            else:
                front.sent()
    except frames.ClosedError:
        os._exit(0)


def main() -> None:
    """Serve as the process at the socket says."""
    line, lock = socket.socket(socket.AF_UNIX), threading.Lock()
    line.connect(sys.argv[1])
    told = json.loads(frames.receive(line, _TOLD))

    def tell(what: dict[str, Any]) -> None:
        with lock:
            frames.send(line, json.dumps(what).encode())

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    front = Front(
        told["superlink"], told["ca"], told["most_bytes"], lambda sentence: tell({"say": sentence})
    )
    threading.Thread(target=_listen, args=(line, front), daemon=True).start()
    asyncio.run(_serve(front, told, lambda: tell({"ready": True})))


if __name__ == "__main__":
    main()
