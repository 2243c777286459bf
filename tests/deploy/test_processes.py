"""Real processes: the command as a user gives it, a device killed, a server killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from airtune.deploy.flower.processes import free_port

AIRTUNE = Path(sys.executable).with_name("airtune")
needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None, reason="flwr is not installed: airtune[flower]"
)


@pytest.fixture
def command(tmp_path):
    """Function that starts `airtune` in an empty folder; what still runs ends with the test."""
    home = tmp_path / "work"
    home.mkdir()
    environment = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = []

    def start(*arguments, log="log"):
        with (home / log).open("ab") as output:
            process = subprocess.Popen(
                [str(AIRTUNE), *map(str, arguments)], cwd=home, env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        started.append(process)
        return process

    def run(*arguments, code=0):
        name = f"log{len(started)}"
        process = start(*arguments, log=name)
        process.wait(timeout=400)
        said = (home / name).read_text()
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said

    start.run, start.home = run, home
    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


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
@pytest.mark.parametrize("way", ["local", pytest.param("flower-local", marks=needs_flower)])
def test_a_trial_with_a_process_for_each_client_equals_one_process(command, description, way):
    command.run("run", description, "--out", "whole", "--quiet")
    command.run("run", description, "--out", "apart", "--quiet", "--federation", way)
    whole, apart = (command.home / name for name in ("whole", "apart"))
    assert adapter(whole) == adapter(apart)
    assert costs(whole) == costs(apart)


@pytest.mark.slow
def test_a_masked_trial_with_processes_equals_the_masked_run_in_one_process(command, description):
    for library in ("cryptography", "Crypto"):
        pytest.importorskip(library, reason="the extra secure is not installed")
    masked = ["--quiet", "--set", "security.secure_sum=true"]
    command.run("run", description, "--out", "whole", *masked)
    command.run("run", description, "--out", "apart", "--federation", "local", *masked)
    whole, apart = (command.home / name for name in ("whole", "apart"))
    assert adapter(whole) == adapter(apart)
    assert costs(whole) == costs(apart)
    assert [row["step"] for row in costs(apart) if row["row"] == "masking"][-1] == "unmasking"
    assert {row["status"] for row in uploads(apart)} == {"delivered"}


def wait_until(true, seconds=900.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def rounds(folder):
    path = folder / "ledger.jsonl"
    return path.read_text().count('"row":"round"') if path.exists() else 0


def uploads(folder):
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").open()]
    return [row for row in rows if row["row"] == "upload"]


@pytest.fixture
def machines(command, three, in_process, rows_of, tmp_path):
    """A server and its three devices as commands, with rows as in one process, over TLS."""
    values = three(
        method={"name": "fedavg", "private": ["classifier.*"]},
        train={"rounds": 4, "evaluate_every": 4},
    )
    _, parts, _ = in_process(values)
    path, port = tmp_path / "four.yaml", free_port()
    path.write_text(yaml.safe_dump(values))
    keys = command.home / "keys"
    command.run("keys", "new", keys)
    for client in range(3):
        command.run("keys", "add", keys, f"device{client}")

    def serve(*more):
        return command("serve", path, "--port", port, "--tls-dir", keys, "--out", "apart",
                       "--limit", "400", "--quiet", *more, log="serve.log")  # fmt: skip

    def join(client, *more, key=None, ca=keys / "ca.crt"):
        train, test = rows_of(parts, client)
        key = key or keys / "nodes" / f"device{client}.key"
        files = ["--train", train, "--test", test, "--personal", f"personal{client}"]
        own = ["--ca", ca, "--key", key, "--client", client, "--device", "cpu", *files, *more]
        return command("join", f"127.0.0.1:{port}", *own, log=f"join{client}.log")

    serve.folder = command.home / "apart"
    return serve, join


@pytest.mark.slow
@needs_flower
def test_killed_devices_and_a_killed_server_come_back_over_tls(machines, command):
    serve, join = machines
    server, devices = serve(), [join(client) for client in range(3)]
    wait_until(lambda: rounds(serve.folder) >= 2)
    devices[1].kill()
    devices[1].wait()
    devices[1] = join(1)
    wait_until(lambda: rounds(serve.folder) >= 4)
    server.kill()
    server.wait()
    server = serve("--resume")
    assert server.wait(timeout=900) == 0, (command.home / "serve.log").read_text()
    rows = uploads(serve.folder)
    assert {row["status"] for row in rows if row["client"] != 1} == {"delivered"}
    assert [row["status"] for row in rows if row["client"] == 1][-1] == "delivered"
    logs = "".join(path.read_text() for path in command.home.glob("*.log"))
    assert "Traceback" not in logs and "PRIVATE KEY" not in logs and ".key" not in logs


@pytest.mark.slow
@needs_flower
def test_who_is_not_known_is_not_let_in(machines, command):
    serve, join = machines
    others = command.home / "others"
    command.run("keys", "new", others)
    command.run("keys", "add", others, "stranger")
    command.run("keys", "revoke", command.home / "keys", "device2")
    server = serve("--wait", "90")
    stranger = join(0, "--wait", "30", key=others / "nodes" / "stranger.key")
    fooled = join(1, "--wait", "30", ca=others / "ca.crt")
    for process in (stranger, fooled):
        assert process.wait(timeout=300) == 2
    for client in (0, 1):
        said = (command.home / f"join{client}.log").read_text()
        assert "does not let this device in" in said
        assert "Traceback" not in said
    assert server.wait(timeout=300) == 2
    assert "3 of 3 devices did not come within 90 s" in (command.home / "serve.log").read_text()
