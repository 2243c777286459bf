"""Personal task tuning (PFTT) and its baselines on Banking77; writes results.json and README.md.

    .venv/bin/python -m benchmarks.pwff.run --shared ../shared

Runs go two at a time, one thread each; those that are in --keep already are read, not repeated.
``--short`` are four rows on three seeds, and writes beside its runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.claims import table
from benchmarks.pwff import cases as of
from benchmarks.pwff.claims import Rows, claims

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.pwff.run --shared DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--short", action="store_true", help="four rows on three seeds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    wanted = list(of.cases(arguments.shared, of.SHORT if arguments.short else of.PLAN))
    runs.execute(wanted, keep, arguments.processes)
    rows: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for case in wanted:
        kept = collected(keep / case.folder)
        rows.setdefault((case.row, case.head, case.skew), {})[case.seed] = kept
    command = COMMAND + " --short" * arguments.short
    results = {
        "claims": claims(rows, command),
        "command": command,
        "machine": runs.machine(),
        "seeds": sorted({case.seed for case in wanted}),
        "versions": runs.versions(),
        "rows": {" | ".join(key): by_seed for key, by_seed in rows.items()},
    }
    target = keep if arguments.short else HERE
    runs.write(results, target / "results.json")
    (target / "README.md").write_text(page(results, rows), encoding="utf-8")


def collected(folder: Path) -> dict[str, Any]:
    """What is kept of a run."""
    import airtune

    said = airtune.load(folder).summary
    return {
        "accuracy": round(said["accuracy"], 4),
        "personal_accuracy": round(said["personal_accuracy"], 4),
        "personal_global": round(said["personal_global_accuracy"], 4),
        "personal": {name: round(v, 4) for name, v in said["personal_accuracies"].items()},
        "upload_bits": said["payload_bits"],
        "model_bits": 32 * said["parameters"],
        "wall_seconds": round(said["wall_seconds"], 1),
    }


def page(results: dict[str, Any], rows: Rows) -> str:
    """Return the page: claims, and a table for each head and skew."""
    parts = [
        "# Personal tuning\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is written by it. "
        "Banking77 on MiniLM, ten clients of some 200 training texts on average, 16 rounds of 5 "
        "steps. Personal accuracy is that of each client's own model on its own test texts, some "
        "800 on average and the same for all rows of a head, skew and seed; global accuracy that "
        "of the server's model on all test texts, and of the clients' own models on 500 of them. "
        "A head is frozen (of 10 public texts of each class, which no client learns from), shared, "
        "or private; a row says what is shared beside it.\n",
        "PFTT+ (ours): its defaults were chosen on Dirichlet 0.1, seed 0. Beside this page: "
        "[alignment](ALIGNMENT.md) (PWFF, PFIT), [learned rewards](REWARDS.md), [other "
        "data](OTHERS.md), [delay and energy](RADIO.md). In the picture above: what personal "
        "tuning gains and forgets; below: whom alignment serves.\n",
        "![personal tuning and alignment](figure.png)\n",
        *table(results["claims"]),
    ]
    for head in of.HEADS:
        for skew in of.SKEWS:
            titles = [row for row in of.HEADS[head] if (row, head, skew) in rows]
            if titles:
                parts.append(f"\n## {head} head, {skew}\n")
                parts.append(_table(rows, titles, head, skew))
    return "\n".join(parts) + "\n"


def _table(rows: Rows, titles: list[str], head: str, skew: str) -> str:
    lines = [
        "| shared | seeds | personal | personal models, all texts | server's model | kbit up |",
        "|" + "---|" * 6,
    ]
    for title in titles:
        kept = list(rows[title, head, skew].values())
        figures = [
            ", ".join(f"{each[key]:.3f}" for each in kept)
            for key in ("personal_accuracy", "personal_global", "accuracy")
        ]
        bits = f"{statistics.fmean(each['upload_bits'] for each in kept) / 1e3:.0f}"
        lines.append(f"| {' | '.join([title, str(len(kept)), *figures, bits])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
