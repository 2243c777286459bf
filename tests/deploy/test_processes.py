"""Real processes: the command as a user gives it, a device killed, a server killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

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
