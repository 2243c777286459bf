"""airtune as an entry beside its peers: the whole run, from import to report.

python -m benchmarks.speed.ours WORKLOAD_FOLDER OUT.json [KEY=VALUE ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import airtune
from airtune.experiment import read_experiment


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    experiment = read_experiment(folder / "experiment.yaml", ["machine.threads=2", *sys.argv[3:]])
    losses, ends = [], []

    def note(totals: object) -> None:
        ends.append(time.perf_counter())
        losses.append(totals.train_loss)  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as out:
        airtune.run(experiment, Path(out) / "run", on_round=note)
    seconds = [later - earlier for earlier, later in pairwise(ends)]
    target.write_text(json.dumps({"round_losses": losses[1:], "round_seconds": seconds}))


if __name__ == "__main__":
    main()
