"""Where the time of a cohort's steps goes, by torch's profiler.

python -m benchmarks.speed.profile WORKLOAD_FOLDER OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from airtune.build import build
from airtune.experiment import read_experiment
from airtune.learning.learner import Assignment
from airtune.learning.phase import Phase, supervised

KINDS = {
    "products of the backbone": ("aten::mm", "aten::addmm"),
    "products of the adapters": ("aten::bmm", "aten::baddbmm"),
    "attention": ("scaled_dot_product",),
    "activations and norms": ("gelu", "layer_norm"),
    "copies and sums": ("aten::copy_", "aten::add", "aten::mul", "aten::cat", "aten::fill_"),
}


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    experiment = read_experiment(
        folder / "experiment.yaml", ["machine.threads=2", "machine.cohort=1024"]
    )
    parts = build(experiment)

    def train(round: int) -> None:
        tasks = [
            Assignment(
                client, round, dict(parts.model.initial),
                [Phase(parts.clients.data[client], supervised, experiment.train.local_steps)],
            )
            for client in range(experiment.clients.count)
        ]  # fmt: skip
        for _ in parts.learner.train(tasks):
            pass

    train(1)
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        train(2)
    own = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    total, shares = sum(own.values()), {}
    for kind, names in KINDS.items():
        mine = [key for key in own if any(key == n or (":" not in n and n in key) for n in names)]
        shares[kind] = sum(own.pop(key) for key in mine) / total
    shares["everything else"] = sum(own.values()) / total
    target.write_text(json.dumps(shares))


if __name__ == "__main__":
    main()
