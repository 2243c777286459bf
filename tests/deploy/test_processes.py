"""Real processes: the command as a user gives it, a device killed, a server killed."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import yaml

needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None, reason="flwr is not installed: airtune[flower]"
)


@pytest.fixture
def description(three, tmp_path):
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump(three(train={"evaluate_every": 3})))
    return path


def adapter(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def costs(folder):
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").open()]
    return [{k: v for k, v in row.items() if not k.startswith("personal_")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("local", ["--set", "security.secure_sum=true"]),
        pytest.param("flower-local", [], marks=needs_flower),
    ],
    ids=["local, masked", "flower-local"],
)
def test_a_trial_with_a_process_for_each_client_equals_one_process(
    command, description, way, options
):
    if options:
        for library in ("cryptography", "Crypto"):
            pytest.importorskip(library, reason="the extra secure is not installed")
    command.run("run", description, "--out", "whole", "--quiet", *options)
    command.run("run", description, "--out", "apart", "--quiet", "--federation", way, *options)
    whole, apart = (command.home / name for name in ("whole", "apart"))
    assert adapter(whole) == adapter(apart)
    assert costs(whole) == costs(apart)
    assert {row["status"] for row in costs(apart) if row["row"] == "upload"} == {"delivered"}
    steps = [row["step"] for row in costs(apart) if row["row"] == "masking"]
    assert steps[-1:] == (["unmasking"] if options else [])


@pytest.mark.slow
@needs_flower
def test_killed_devices_and_a_killed_server_come_back_over_tls(machines, command):
    serve, join = machines
    server, devices = serve(), [join(client) for client in range(3)]
    command.until(lambda: serve.rounds() >= 2)
    devices[1].kill()
    devices[1].wait()
    devices[1] = join(1)
    command.until(lambda: serve.rounds() >= 4)
    server.kill()
    server.wait()
    server = serve("--resume")
    assert server.wait(timeout=900) == 0, (command.home / "serve.log").read_text()
    rows = serve.uploads()
    assert {row["status"] for row in rows if row["client"] != 1} == {"delivered"}
    assert [row["status"] for row in rows if row["client"] == 1][-1] == "delivered"
    logs = "".join(path.read_text() for path in command.home.glob("*.log"))
    assert "Traceback" not in logs and "PRIVATE KEY" not in logs and ".key" not in logs


@pytest.mark.slow
@needs_flower
def test_a_device_that_is_told_to_end_leaves_nothing_behind(command, three, in_process, rows_of):
    _, parts, _ = in_process(three(train={"rounds": 1}))
    train, _ = rows_of(parts, 0)
    device = command("join", "127.0.0.1:9", "--train", train, "--device", "cpu", log="join.log")
    said = command.home / "join.log"
    command.until(lambda: "trying again" in said.read_text(), 60.0)
    assert list(command.homes.glob("airtune-*"))
    device.terminate()
    assert device.wait(timeout=30) == 130
    assert not list(command.homes.glob("airtune-*"))
    assert "left; the same command joins again" in said.read_text()
