"""Runs of a benchmark: two at a time, one thread each; those that are there already are kept."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol


class Case(Protocol):
    """One run: the folder that it goes to, below the one of all runs, and its experiment."""

    @property
    def folder(self) -> str: ...

    @property
    def values(self) -> dict[str, Any]: ...


def execute(wanted: Sequence[Case], keep: Path, processes: int) -> None:
    """Run what is not there yet, ``processes`` at a time."""
    waiting = [case for case in wanted if not done(keep / case.folder)]
    os.environ["OMP_NUM_THREADS"] = "1"  # for the workers: two that share cores must not spin
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, case.values, keep / case.folder): case for case in waiting}
        for number, future in enumerate(as_completed(running), 1):
            case, minutes = running[future], (time.perf_counter() - started) / 60
            print(f"{number}/{len(waiting)} {minutes:.1f} min {case.folder} {future.result()}",
                  flush=True)  # fmt: skip


def run(values: dict[str, Any], folder: Path) -> str:
    """Run one experiment; return its last scores. Called in a process of its own."""
    import airtune
    from airtune.experiment import Experiment

    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    folder.parent.mkdir(parents=True, exist_ok=True)
    finished = airtune.run(Experiment(**values), folder)
    said = finished.summary
    scores = " ".join(f"{value:.3f}" for value in finished.history["accuracy"].dropna())
    return f"{scores} | {said['uplink_bits'] / 1e6:.2f} Mbit, {said['wall_seconds']:.0f} s"


def done(folder: Path) -> bool:
    return (folder / "summary.json").exists()


def write(results: dict[str, Any], path: Path) -> None:
    """Write results as JSON, a list of numbers on one line."""
    text = json.dumps(results, indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of what figures depend on."""
    from importlib.metadata import version

    names = ("airtune", "torch", "transformers", "peft", "numpy", *more)
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def machine() -> str:
    """Return what kind of computer this is."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}"
