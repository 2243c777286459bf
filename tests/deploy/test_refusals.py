"""A run over TLS whose devices are revoked or crooked goes on, and writes nothing secret."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("flwr") is None, reason="flwr is not installed: airtune[flower]"),
]
# A device that sends something else in some rounds, and keeps what it hears and says.
CROOKED = """\
import os, sys
from pathlib import Path
import torch
from airtune.deploy.device import Device, Holdings, machine_of, to_stderr
from airtune.deploy.flower.engine import join
from airtune.federation import letters
from airtune.federation.contents import Done, Task
from airtune.federation.letters import Letter
from airtune.wire import Dense, encode

server, train, test, ca, key = sys.argv[1:]
device = Device(Holdings(train, test, Path("personal2"), machine_of("cpu"), None, 2), to_stderr)
before = []

def instead(letter, said):
    done = Done(sent=True, tokens=1)
    if letter.content.round == 2:
        return letters.write(Letter(letter.run, letter.sequence, done, os.urandom(1_500_000)))
    if letter.content.round == 3:
        return said[:-100]
    if letter.content.round == 4:
        return before[0]
    if letter.content.round == 5:
        shapes = device._own.clients._method.uplink_shapes()
        tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
        other = encode(Dense({**tensors, next(iter(tensors)): torch.zeros(3, 3)}))
        return letters.write(Letter(letter.run, letter.sequence, done, other))
    return said

def answer(data):
    letter = letters.read(data)
    said = device.answer(data)
    if isinstance(letter.content, Task):
        before.append(said)
        said = instead(letter, said)
    with open("letters", "ab") as kept:
        kept.write(data + said[:1_000_000])
    return said

join(server, answer, Path(ca), Path(key), 600.0, to_stderr)
"""
REFUSED = {
    2: ("missed", "bytes are too many for a letter; at most 1000000"),
    3: ("missed", "the letter declares"),
    4: ("missed", "was sent"),
    5: ("refused", "has shape (3, 3), expected"),
}


def test_a_run_goes_on_without_a_revoked_device_and_takes_nothing_crooked(
    machines, command, tmp_path
):
    serve, join = machines
    ca, own = serve.keys / "ca.crt", serve.keys / "nodes"
    server, _, _ = serve("--most", "1", "--set", "train.rounds=6"), join(0), join(1)
    train, test = tmp_path / "train2.jsonl", tmp_path / "test2.jsonl"
    serve.rows(2)
    crooked = [sys.executable, "-c", CROOKED, f"127.0.0.1:{serve.port}", train, test, ca]
    command.python(*crooked, own / "device2.key", log="join2.log")
    command.until(lambda: serve.rounds() >= 2)
    command.run("keys", "revoke", serve.keys, "device1")
    command.until(lambda: serve.rounds() >= 3)
    nothing_secret(command, tmp_path)
    assert server.wait(timeout=600) == 0
    nothing_secret(command, tmp_path)
    said = (command.home / "serve.log").read_text()
    rows = {(row["round"], row["client"]): row for row in serve.uploads()}
    for round, (status, reason) in REFUSED.items():
        row = rows.pop((round, 2))
        assert row["status"] == status and reason in row["reason"], row
        assert status == "refused" or reason in said
    out = {
        round
        for (round, client), row in rows.items()
        if client == 1 and row["status"] != "delivered"
    }
    assert 6 in out and not out & {1, 2}
    assert {row["status"] for (_, client), row in rows.items() if client != 1} == {"delivered"}
    assert "the key of device1 was revoked; it takes part no longer" in said
    # Its key was in the folder, and went with the revocation.
    assert "the device's key cannot be read" in (command.home / "join1.log").read_text()


def nothing_secret(command, tmp_path):
    """Assert that no log, payload or file of a run has a text, a private key or where one lies."""
    rows = [json.loads(line) for path in tmp_path.glob("t*.jsonl") for line in path.open()]
    texts = {value.encode() for row in rows for value in row.values() if isinstance(value, str)}
    # Names of classes are one word, and in every device's start.
    words = [b"PRIVATE KEY", *(text for text in texts if b" " in text)]
    words += [path.name.encode() for path in command.home.rglob("*.key")] + [b"device1.key"]
    assert len(words) > 10
    own = [path for path in command.home.rglob("*") if "keys" not in path.parts]
    # What `airtune keys add` prints is where the key lies.
    own = [path for path in own if not re.fullmatch(r"log\d+", path.name)]
    files = [path for path in (*command.homes.rglob("*"), *own) if path.is_file()]
    assert {"serve.log", "letters", "ledger.jsonl"} <= {path.name for path in files}
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # Flower tidies up
            data = file.read_bytes()
            assert not [word for word in words if word in data], file
