"""Speed and memory of airtune; writes results.json, README.md and figure.png.

python -m benchmarks.speed.run [--minilm FOLDER] [--peers FOLDER] [--only S1 S2 ...]

--minilm names the pretrained encoder of S2, --peers a folder filled by
benchmarks.speed.peers.environments. --only measures these again and keeps the other figures of
results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.speed import page, workload

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
PAIR = ["loop", "serial:machine.cohort=1", "auto:machine.cohort=null"]
PEERS = {"pfl": "pfl_entry", "flower": "flower_entry", "nvflare": "nvflare_entry"}


def child(arguments: Iterable[object], python: str | Path = sys.executable) -> tuple[float, int]:
    """Run a module to its end; return wall seconds and peak memory of its process tree, bytes."""
    command = [str(python), "-m", *map(str, arguments)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        peak = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        watcher.join()
        if code:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{log.read().decode()[-3000:]}")
    return seconds, peak[0]


def _watch(pid: int, peak: list[int]) -> None:
    """Note the largest sum of the tree's memory; what processes share counts once (PSS)."""
    while psutil.pid_exists(pid):
        total = 0
        try:
            parent = psutil.Process(pid)
            for process in [parent, *parent.children(recursive=True)]:
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            pass  # one has just ended; what the others hold is summed up next time
        peak[0] = max(peak[0], total)
        time.sleep(0.1)


def paired(own: workload.Workload, scratch: Path, *entries: str) -> dict[str, Any]:
    """Run a workload's entries in turn in one process; return their seconds and losses."""
    folder = workload.write(own, scratch / own.name)
    child(["benchmarks.speed.pair", folder, folder / "pair.json", *entries])
    measured: dict[str, Any] = json.loads((folder / "pair.json").read_text())
    return {"workload": own.name, **measured}


def serial(scratch: Path, rounds: dict[int, int]) -> list[dict[str, Any]]:
    return [
        paired(workload.toy(clients, rounds=count), scratch, *PAIR)
        for clients, count in rounds.items()
    ]


def options(scratch: Path) -> list[dict[str, Any]]:
    compiled = "compiled:machine.cohort=1,machine.compile=true"
    half = "bfloat16:machine.cohort=1,model.dtype=bfloat16"
    large = workload.encoder(4, 16, 64, rounds=6)
    return [
        paired(workload.toy(8, rounds=12), scratch, "serial:machine.cohort=1", compiled),
        paired(large, scratch, "serial:machine.cohort=1", half),
    ]


def minilm(scratch: Path, model: str) -> list[dict[str, Any]]:
    own = workload.encoder(16, 16, 64, steps=2, rounds=7, model=model)
    return [paired(replace(own, name="minilm-16x16x64"), scratch, *PAIR)]


def cohorts(scratch: Path) -> list[dict[str, Any]]:
    shapes = {(16, 1, 16): 12, (32, 2, 32): 12, (16, 4, 32): 10}
    return [
        paired(
            workload.encoder(*shape, rounds=count), scratch, *PAIR,
            f"cohort:machine.cohort={shape[0]}",
        )
        for shape, count in shapes.items()
    ]  # fmt: skip


def prefix(scratch: Path) -> list[dict[str, Any]]:
    measured = []
    for top in (2, 1):
        own = workload.encoder(4, 16, 64, top_layers=top, rounds=9)
        entries = ("recomputed:machine.prefix_cache_gb=0", "cached:machine.prefix_cache_gb=2")
        measured.append(paired(replace(own, name=f"top-{top}-of-6"), scratch, *entries))
    return measured


def population(scratch: Path) -> list[dict[str, Any]]:
    own = workload.Workload(
        "population", "classification", 100_000, rows=2, length=12, batch=4, steps=2, rounds=1,
        layers=2, width=64, heads=4, feed_forward=128, rank=4,
    )  # fmt: skip
    folder = workload.write(own, scratch / own.name)
    measured = []
    for clients in (10, 100_000):
        child(["benchmarks.speed.population", folder, folder / "out.json", clients, 20])
        measured.append(json.loads((folder / "out.json").read_text()))
    return measured


def shares(scratch: Path) -> dict[str, Any]:
    """Profile a cohort's round on the workload of S4."""
    folder = workload.write(workload.encoder(32, 2, 32), scratch / "profile")
    child(["benchmarks.speed.profile", folder, folder / "out.json"])
    measured: dict[str, float] = json.loads((folder / "out.json").read_text())
    return {"workload": "encoder-32x2x32", "shares": measured}


def startup(scratch: Path) -> dict[str, list[float]]:
    del scratch
    taken: dict[str, list[float]] = {"imports": [], "airtune": []}
    for repeat in range(7):
        for kind, seconds in taken.items():
            command = [sys.executable, "-m", "benchmarks.speed.startup", kind]
            done = subprocess.run(
                [*command, "examples/quickstart.yaml"],
                cwd=ROOT, capture_output=True, text=True, check=True,
            )  # fmt: skip
            if repeat:  # the first one warms the disk
                seconds.append(float(done.stdout.split()[-1]))
    return taken


def peers(scratch: Path, folder: Path | None) -> list[dict[str, Any]]:
    """Run whole processes on the toys: the loop, airtune, and the peers that are installed."""
    commands: dict[str, tuple[str, list[str], str | Path]] = {
        "loop": ("benchmarks.speed.loop", [], sys.executable),
        "airtune": ("benchmarks.speed.ours", ["machine.cohort=null"], sys.executable),
    }
    for name, module in PEERS.items():
        if folder is not None and (folder / name / "bin" / "python").exists():
            where = (folder / name / "bin" / "python").absolute()
            commands[name] = (f"benchmarks.speed.peers.{module}", [], where)
    measured = []
    for clients, repeats in ((8, 5), (64, 3)):
        own = workload.write(workload.toy(clients, rounds=6), scratch / f"peers-{clients}")
        entry: dict[str, Any] = {"workload": f"toy-{clients}", "entries": {}}
        for name, (module, options, python) in commands.items():
            if name == "nvflare" and clients > 8:
                continue  # a process per client: 64 of them exhaust this machine's memory
            runs = []
            for _ in range(repeats):
                seconds, peak = child([module, own, own / "out.json", *options], python)
                result = json.loads((own / "out.json").read_text())
                runs.append({"wall_seconds": seconds, "peak_bytes": peak, **result})
            entry["entries"][name] = runs
        measured.append(entry)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*")
    chosen = parser.parse_args()
    raw = json.loads(RESULTS.read_text())["raw"] if RESULTS.exists() else {}
    stages: dict[str, Callable[[Path], Any]] = {
        "S1": lambda scratch: serial(scratch, {8: 42, 64: 12}),
        "S1-512": lambda scratch: serial(scratch, {512: 7}),
        "options": options, "S3": cohorts, "S7": prefix, "profile": shares,
        "S8": population, "S9": startup,
        "peers": lambda scratch: peers(scratch, chosen.peers),
    }  # fmt: skip
    if chosen.minilm:
        stages["S2"] = lambda scratch: minilm(scratch, str(chosen.minilm.absolute()))
    for name, stage in stages.items():
        if chosen.only and name not in chosen.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            raw[name] = stage(Path(scratch))
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        _write(raw)  # after each, as the next may fail
    _write(raw)
    page.write(json.loads(RESULTS.read_text()), HERE)


def _write(raw: dict[str, Any]) -> None:
    packages = ("airtune", "torch", "transformers", "peft", "numpy")
    results = {
        "claims": page.claims(raw),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
        "seeds": [0],
        "raw": raw,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
