"""The front of a served run before a server that answers everything, as Flower nearly does."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from base64 import b64encode

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

import httpx
import uvicorn
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airtune.deploy import keys
from airtune.deploy.flower.door import Door
from airtune.deploy.flower.engine import Members
from airtune.deploy.flower.front import PUBLIC_KEY, SIGNATURE, SIGNED, pem
from airtune.deploy.flower.processes import Tls, free_port
from airtune.errors import UserError

MOST = 2_000_000
PUSH = "/v1/fleet/push-object"


class Behind:
    """Answers every request with its body turned round, and keeps the paths and headers."""

    def __init__(self, tls):
        self.port, self.asked = free_port(), []
        files = {"ssl_keyfile": tls.key, "ssl_certfile": tls.certificate}
        config = uvicorn.Config(
            self, port=self.port, log_config=None, lifespan="off", **files, ws="none"
        )
        self.server = uvicorn.Server(config)
        threading.Thread(target=self.server.run, daemon=True).start()
        while not self.server.started:
            time.sleep(0.01)

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.asked.append((scope["path"], dict(scope["headers"])))
        headers = [(b"x-mark", b"kept"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 207, "headers": headers})
        await send({"type": "http.response.body", "body": body[::-1]})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A front, what is behind it, a client that trusts it, what it said, and keys' headers."""
    folder = tmp_path_factory.mktemp("front") / "keys"
    keys.new(folder)
    files = {name: keys.add(folder, name) for name in ("mine", "other", "stranger")}
    tls = Tls(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    known = {pem(folder / "nodes" / f"{name}.pub"): name for name in ("mine", "other")}
    behind, said, port = Behind(tls), [], free_port()
    front = Door("127.0.0.1", port, tls, behind.port, MOST, folder.parent / "home", said.append)
    front.know(known)
    trust = ssl.create_default_context(cafile=str(tls.ca))

    def signed(name, when="2026-01-01T00:00:00+00:00"):
        key = serialization.load_ssh_private_key(files[name].read_bytes(), None)
        public = pem(folder / "nodes" / f"{name}.pub")
        signature = key.sign(when.encode(), ec.ECDSA(hashes.SHA256()))
        told = {PUBLIC_KEY: public, SIGNATURE: signature}
        return {k: b64encode(v).decode() for k, v in told.items()} | {SIGNED: when}

    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust) as client:
        yield front, behind, client, said, signed
    front.end()
    behind.server.should_exit = True


def test_a_devices_request_goes_through_as_it_is_and_so_does_the_answer(world):
    _, behind, client, _, signed = world
    body, headers = bytes(range(256)) * 1000, signed("mine") | {"flwr-more": "1"}
    found = client.post(PUSH, content=body, headers=headers)
    assert (found.status_code, found.content) == (207, body[::-1])
    assert found.headers["x-mark"] == "kept"
    path, seen = behind.asked[-1]
    assert path == PUSH
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    assert sent.items() <= seen.items()
    assert seen[b"host"] == f"127.0.0.1:{behind.port}".encode()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/docs",
        "/openapi.json",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/x%2f..%2f..%2fcontrol%2fstart-run",
        "//v1/control/start-run",
        "/v1/fleet/push-object/",
        "/v1/fleet/push-object?x=1",
        "/v1/fleet/push-object\\..\\x",
    ],
)
def test_nothing_but_a_devices_requests_gets_through(world, path):
    front, behind, _, _, signed = world
    before = len(behind.asked)
    for verb in ("POST", "GET"):
        assert raw(front, f"{verb} {path} HTTP/1.1", signed("mine")).split()[1] in ("404", "400")
    assert len(behind.asked) == before


def test_two_requests_in_the_body_of_one_are_one(world):
    front, behind, _, _, signed = world
    inner = "POST /v1/control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    for told in ({"content-length": "0", "transfer-encoding": "chunked"}, {"content-length": "5"}):
        raw(front, f"POST {PUSH} HTTP/1.1", signed("mine") | told, inner)
    assert all(path == PUSH for path, _ in behind.asked)


def raw(front, line, headers, body=""):
    """Send bytes as they are, as no client would; return what comes first."""
    trust = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", front.port)) as plain:
        told = {"host": "x", "connection": "close", "content-length": str(len(body))} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        with trust.wrap_socket(plain) as connection:
            connection.settimeout(20)
            connection.sendall(f"{line}\r\n{head}\r\n{body}".encode())
            return connection.recv(4096).decode()


def test_who_is_not_known_is_not_read_for_long(world):
    _, behind, client, _, signed = world
    before, large = len(behind.asked), bytes(70_000)
    forged = signed("mine") | {SIGNED: "2026-01-01T00:00:01+00:00"}
    for headers in ({}, signed("stranger"), forged, {PUBLIC_KEY: "é".encode(), SIGNATURE: "?"}):
        assert client.post(PUSH, content=large, headers=headers).status_code == 413
        # Chunks do not say beforehand how many come.
        pieces = (large[:10_000] for _ in range(7))
        assert client.post(PUSH, content=pieces, headers=headers).status_code == 413
    assert len(behind.asked) == before
    # Flower itself tells who asks for little that it is not known.
    assert client.post("/v1/fleet/activate-node", content=b"ab").content == b"ba"


def test_a_device_that_answers_more_than_is_taken_is_cut_off_until_the_next_letter(world):
    front, _, client, said, signed = world
    a_letter_goes_out(front)
    taken = [push(client, signed("other"), 1_000_000) for _ in range(5)]
    assert taken == [207, 207, 207, 413, 413]
    assert push(client, signed("mine"), 1_000_000) == 207  # what one has sent is its own affair
    assert len(said) == 1 and said[0].startswith("other answers more than")
    a_letter_goes_out(front)
    assert push(client, signed("other"), 1_000_000) == 207
    assert push(client, signed("other"), 9_000_000) == 413  # of one piece
    assert len(said) == 1


def a_letter_goes_out(front):
    front.sent()
    time.sleep(0.5)  # which the front hears long before a device does


def push(client, headers, length):
    return client.post(PUSH, content=bytes(length), headers=headers).status_code


def test_plain_http_is_not_spoken(world):
    front, behind, *_ = world
    before = len(behind.asked)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://127.0.0.1:{front.port}{PUSH}", content=b"ab")
    assert len(behind.asked) == before


def test_a_port_that_another_program_has_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        tls = Tls(*(tmp_path / "none" for _ in range(3)))
        with pytest.raises(UserError, match=r"--port: .* cannot be used"):
            Door("127.0.0.1", other.getsockname()[1], tls, 1, MOST, tmp_path / "home", print)


def test_a_front_that_cannot_serve_is_said(tmp_path):
    tls = Tls(*(tmp_path / "none" for _ in range(3)))
    with pytest.raises(UserError, match=r"--port: 127.0.0.1:\d+ cannot be served; see .*front.log"):
        Door("127.0.0.1", free_port(), tls, 1, MOST, tmp_path / "home", print)


def test_who_connects_and_says_nothing_is_hung_up_and_others_are_served_meanwhile(world):
    front, _, client, _, signed = world
    silent = [socket.create_connection(("127.0.0.1", front.port)) for _ in range(600)]
    assert push(client, signed("mine"), 1_000) == 207
    for each in silent:
        each.settimeout(30)
        assert each.recv(1) == b""
        each.close()


def test_a_front_that_is_killed_is_started_again_and_knows_its_devices(world):
    front, _, client, said, signed = world
    os.killpg(front._process.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while True:
        try:
            assert push(client, signed("other"), 100_000) == 207
            break
        except httpx.HTTPError:
            assert time.monotonic() < end
            time.sleep(0.2)
    assert said[-1] == "the front of the run ended, and is started again"


def test_a_key_that_flower_refuses_keeps_its_device_out_and_the_run_goes_on(tmp_path):
    folder, asked, said = tmp_path / "keys", [], []
    keys.new(folder)
    for name in ("good", "bad"):
        keys.add(folder, name)

    class Link:
        def register(self, file):
            asked.append(file.stem)
            if file.stem == "bad":
                raise UserError("it is registered already")
            return "7"

        def unregister(self, node):
            asked.append(node)

    members = Members(Link(), folder, said.append)
    for _ in range(3):
        members.update()
    assert sorted(asked) == ["bad", "good"]
    assert list(members.known().values()) == ["good"]
    assert said == ["the key of bad is not taken: it is registered already"]
    keys.revoke(folder, "good")
    members.update()
    assert asked[-1] == "7" and members.known() == {}
