"""One run on the test bed: what its ledger says, and what the interfaces counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airtune.deploy import keys
from airtune.deploy.trial import divide
from airtune.experiment import Experiment
from airtune.federation.ledger import read
from benchmarks.shaped_links.bed import Bed

PORT = 18700
_MOST_S = 1800.0


def run(
    values: dict[str, Any],
    rates: list[float],
    down: float,
    changes: Mapping[int, Mapping[int, float]],
) -> dict[str, Any]:
    """Run an experiment with a device for each of ``rates`` in Mbit/s; return all that was seen.

    ``changes`` are new rates by the round after which they hold, and by device.
    """
    experiment = Experiment(**values)
    with tempfile.TemporaryDirectory() as name, Bed(rates, down) as bed:
        folder = Path(name)
        _, files = divide(experiment, folder)
        keys.new(folder / "keys")
        described = folder / "experiment.json"
        described.write_text(json.dumps(experiment.model_dump(mode="json")), encoding="utf-8")
        os.environ["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, "-m", "benchmarks.shaped_links.server", str(described)]
        command += [str(folder / each) for each in ("run", "keys")]
        command += [str(PORT), str(folder / "idle.json")]
        server = bed.serve(command, folder / "serve.log")
        airtune = str(Path(sys.executable).with_name("airtune"))
        for device, own in enumerate(files):
            key = keys.add(folder / "keys", f"device{device}")
            joined = [airtune, "join", f"{bed.address(device)}:{PORT}", "--train", str(own.train)]
            joined += ["--ca", str(folder / "keys" / "ca.crt"), "--key", str(key)]
            joined += ["--personal", str(folder / f"personal{device}"), "--client", str(device)]
            joined += ["--device", "cpu"] + (["--test", str(own.test)] if own.test else [])
            bed.join(device, joined, folder / f"join{device}.log")
        counts = _watch(server, bed, folder, changes)
        if server.returncode != 0:
            raise RuntimeError((folder / "serve.log").read_text(encoding="utf-8")[-2000:])
        return {
            "rows": read(folder / "run" / "ledger.jsonl"),
            "counts": counts,
            "idle_s": json.loads((folder / "idle.json").read_text(encoding="utf-8")),
        }


def _watch(
    server: subprocess.Popen[bytes],
    bed: Bed,
    folder: Path,
    changes: Mapping[int, Mapping[int, float]],
) -> list[list[dict[str, int]]]:
    """Return what the interfaces had counted after each round, and change rates on the way."""
    ledger, counts, end = folder / "run" / "ledger.jsonl", [], time.monotonic() + _MOST_S
    while server.poll() is None:
        if time.monotonic() > end:
            raise RuntimeError(f"the run did not end within {_MOST_S:g} s")
        text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
        rounds = text.count('"row":"round"')
        if rounds > len(counts):
            for device, mbit in changes.get(rounds - 1, {}).items():
                bed.shape(device, mbit)
            counts.append([asdict(bed.count(device)) for device in range(len(bed.rates))])
            print(f"round {rounds - 1}", flush=True)
        time.sleep(0.1)
    return counts
