"""SOFT, TSFA and their baselines on Banking77; writes results.json, figure.png and README.md.

    .venv/bin/python -m benchmarks.soft.run --shared ../shared

Runs go two at a time, one thread each; those that are in --keep already are read, not repeated.
``--short`` runs the first seed of the first two tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.soft import page
from benchmarks.soft.cases import ABLATIONS, COVARIANCE, EASY, cases

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.soft.run --shared DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--short", action="store_true", help="first seed, without ablations")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    parser.add_argument("--page", action="store_true", help="write the page of what is in --keep")
    parser.add_argument(
        "--earlier", action="store_true", help="what is not in --keep is taken from results.json"
    )
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    wanted = list(cases(arguments.shared, arguments.seeds))
    if arguments.short:
        ablations = {row for row, *_ in (*ABLATIONS, *EASY, *COVARIANCE)}
        wanted = [c for c in wanted if c.seed == arguments.seeds[0] and c.row not in ablations]
    if not arguments.page:
        runs.execute(wanted, keep, arguments.processes)
    found = {c: collected(keep / c.folder) for c in wanted if runs.done(keep / c.folder)}
    if arguments.earlier:
        earlier = json.loads((HERE / "results.json").read_text())["rows"]
        rest = (case for case in wanted if str(case.seed) in earlier.get(case.row, {}))
        found = {case: earlier[case.row][str(case.seed)] for case in rest} | found
    if not found:
        raise SystemExit("nothing is measured yet.")
    results = page.results(found, COMMAND, runs.machine(), runs.versions())
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page.write(results, HERE)


def collected(folder: Path) -> dict[str, Any]:
    """What is kept of a run: its curves, its totals, latencies, and what was dropped."""
    import airtune

    run = airtune.load(folder)
    history, uploads = run.history, run.uploads
    measured = history[history["accuracy"].notna()]
    sent = uploads[uploads["bits"] > 0].copy()
    sent["latency"] = sent["compute_seconds"] + sent["seconds"]
    kept: dict[str, Any] = {
        "round": [int(each) for each in measured["round"]],
        "accuracy": [round(float(each), 4) for each in measured["accuracy"]],
        "total_uplink_bits": [int(each) for each in measured["total_uplink_bits"]],
        "total_seconds": [round(float(each), 3) for each in measured["total_seconds"]],
        "uplink_bits": int(run.summary["uplink_bits"]),
        "worst_latency": round(float(sent.groupby("client")["latency"].mean().max()), 4),
        "round_latency": round(float(sent.groupby("round")["latency"].max().mean()), 4),
        "statuses": {k: int(v) for k, v in uploads["status"].value_counts().items()},
        "wall_seconds": round(float(run.summary["wall_seconds"]), 1),
    }
    if "gradient_norm" in history:
        norms = history["gradient_norm"].dropna()
        kept["gradient_norm"] = [round(float(each), 4) for each in norms]
    for name in ("kept", "drop_error"):
        if name in sent:
            kept[name] = round(float(sent[name].astype(float).mean()), 4)
    for name in ("covariance", "covariance_of_change"):
        if name in history:
            kept[name] = [None if v != v else round(float(v), 4) for v in history[name]]
    return kept


if __name__ == "__main__":
    main()
