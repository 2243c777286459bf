"""First light: Banking77 by federated LoRA over a cell; writes results.json, figure.png, README.md.

    .venv/bin/python -m benchmarks.first_light.run \
        --data ../shared/data/banking77 --model ../shared/models/minilm-l6-v2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import airtune
from airtune.experiment import read_experiment
from benchmarks.picture import photograph

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "banking77.yaml"
COMMAND = "python -m benchmarks.first_light.run --data DIR --model DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train.csv and test.csv")
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    runs = []
    for seed in arguments.seeds:
        experiment = read_experiment(
            EXAMPLE,
            [
                f"data.train={arguments.data / 'train.csv'}",
                f"data.test={arguments.data / 'test.csv'}",
                f"model.name={arguments.model}",
                f"seed={seed}",
            ],
        )
        folder = keep / f"seed-{seed}"
        runs.append(airtune.run(experiment, folder, resume=folder.exists(), on_round=print))
    results = collect(runs, arguments.seeds)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "README.md").write_text(readme(results))
    photograph(runs[0].path / "report.html", HERE / "figure.png")


def collect(runs: list[airtune.Run], seeds: list[int]) -> dict:
    """Claims as measured, and every round of every seed."""
    accuracy = [run.summary["accuracy"] for run in runs]
    wall = [run.summary["wall_seconds"] for run in runs]
    return {
        "claims": [
            {
                "id": "F1",
                "what": "Banking77 test accuracy after 30 rounds, worst seed",
                "target": ">= 0.75",
                "measured": round(min(accuracy), 4),
                "holds": min(accuracy) >= 0.75,
                "command": COMMAND,
            },
            {
                "id": "F2",
                "what": "wall seconds of one run on two CPU cores, slowest seed",
                "target": "<= 900",
                "measured": max(wall),
                "holds": max(wall) <= 900,
                "command": COMMAND,
            },
        ],
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
        "versions": runs[0].experiment.versions,
        "seeds": seeds,
        "runs": [
            {
                **{
                    key: run.summary[key]
                    for key in (
                        "accuracy", "personal_accuracy", "uplink_bits", "downlink_bits",
                        "seconds", "joules", "payload_bits", "delivered", "asked", "wall_seconds",
                    )
                },
                "rounds": rounds(run),
            }
            for run in runs
        ],
    }  # fmt: skip


def rounds(run: airtune.Run) -> list[dict]:
    """The evaluated rounds with their running totals."""
    columns = [
        "round", "accuracy", "personal_accuracy", "total_uplink_bits", "total_downlink_bits",
        "total_seconds", "total_joules",
    ]  # fmt: skip
    evaluated = run.history[run.history["accuracy"].notna()][columns]
    return json.loads(evaluated.round(4).to_json(orient="records"))


def readme(results: dict) -> str:
    """The page beside the results; every figure comes from them."""
    runs = results["runs"]

    def spread(key: str, scale: float, digits: int) -> str:
        values = [run[key] * scale for run in runs]
        middle = f"{statistics.median(values):.{digits}f}"
        return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    by_round = [
        f"| {row['round']} | {row['accuracy']:.3f} | {row['personal_accuracy']:.3f} | "
        f"{row['total_uplink_bits'] / 1e6:.1f} | {row['total_downlink_bits'] / 1e6:.1f} | "
        f"{row['total_seconds']:.1f} | {row['total_joules']:.0f} |"
        for row in runs[0]["rounds"]
    ]
    claims = [
        f"| {c['id']} | {c['what']} | {c['target']} | {c['measured']} | "
        f"{'yes' if c['holds'] else 'no'} |"
        for c in results["claims"]
    ]
    return "\n".join(
        [
            "# First light",
            "",
            "Ten clients (Dirichlet 0.5) learn Banking77's 77 intents with a rank-8 LoRA and a "
            "linear head on all-MiniLM-L6-v2, by federated averaging over an urban micro cell of "
            "10 MHz: `examples/banking77.yaml`. This page is written by `run.py`.",
            "",
            "| claim | what | target | measured | holds |",
            "|---|---|---|---|---|",
            *claims,
            "",
            f"Median (range) over seeds {', '.join(map(str, results['seeds']))}:",
            "",
            "| figure | |",
            "|---|---|",
            f"| test accuracy | {spread('accuracy', 1, 3)} |",
            f"| personal accuracy, own test parts | {spread('personal_accuracy', 1, 3)} |",
            f"| uplink, Mbit | {spread('uplink_bits', 1e-6, 1)} |",
            f"| downlink, Mbit | {spread('downlink_bits', 1e-6, 1)} |",
            f"| one payload, Mbit | {spread('payload_bits', 1e-6, 3)} |",
            f"| simulated seconds | {spread('seconds', 1, 1)} |",
            f"| joules, all clients | {spread('joules', 1, 0)} |",
            f"| uploads delivered | {spread('delivered', 1, 0)} of {runs[0]['asked']} |",
            f"| wall seconds | {spread('wall_seconds', 1, 0)} |",
            "",
            f"Seed {results['seeds'][0]}, by round (totals so far):",
            "",
            "| round | accuracy | personal | uplink Mbit | downlink Mbit | seconds | joules |",
            "|---|---|---|---|---|---|---|",
            *by_round,
            "",
            "![the report of the first seed](figure.png)",
            "",
            f"Machine: {results['machine']}. Versions: "
            + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
            + ". Wall time includes evaluation and is that of a shared machine.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
