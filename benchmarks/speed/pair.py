"""The bare loop and variants of airtune in one process, round by round in turn.

python -m benchmarks.speed.pair WORKLOAD_FOLDER OUT.json NAME[:KEY=VALUE,...] ...

Each NAME is an airtune session with these overrides; ``loop`` is the hand-written one. Taking turns
makes the ratios hold where the speed of the machine drifts. Sessions write their ledger and their
checkpoints as users' do; they are evaluated after the last round only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from airtune.build import build, session
from airtune.experiment import read_experiment
from benchmarks.speed import loop

THREADS = 2


def bare_loop(folder: Path, rounds: int) -> Iterator[float]:
    """Yield the mean loss of each round of the hand-written loop."""
    spec = json.loads((folder / "spec.json").read_text())
    arrays = dict(np.load(folder / "workload.npz"))
    model, names = loop.build(spec, arrays, "own")
    for round in range(rounds):
        yield loop.train_round(spec, arrays, model, names, round)


def airtune_session(folder: Path, overrides: list[str], out: Path) -> Iterator[float | None]:
    """Yield the mean loss of each round of an airtune run; round 0 is behind us."""
    never = [f"train.evaluate_every={10**6}", f"machine.threads={THREADS}"]
    experiment = read_experiment(folder / "experiment.yaml", [*never, *overrides])
    parts = build(experiment)
    rounds = session(parts, experiment, out).rounds()
    next(rounds)
    for totals in rounds:
        yield totals.train_loss


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(THREADS)
    # The last round is left out: airtune ends it with an evaluation, which the loop has not.
    rounds = json.loads((folder / "spec.json").read_text())["rounds"] - 1
    entries: dict[str, Iterator[float | None]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for argument in sys.argv[3:]:
            name, _, overrides = argument.partition(":")
            if name == "loop":
                entries[name] = bare_loop(folder, rounds)
            else:
                keys = [key for key in overrides.split(",") if key]
                out = Path(scratch) / name
                out.mkdir()
                entries[name] = airtune_session(folder, keys, out)
        seconds: dict[str, list[float]] = {name: [] for name in entries}
        losses: dict[str, list[float | None]] = {name: [] for name in entries}
        for _ in range(rounds):
            for name, entry in entries.items():
                started = time.perf_counter()
                losses[name].append(next(entry))
                seconds[name].append(time.perf_counter() - started)
    target.write_text(json.dumps({"seconds": seconds, "losses": losses}))


if __name__ == "__main__":
    main()
