"""SOFT, TSFA and their baselines on Banking77; writes results.json, figure.png and README.md.

    .venv/bin/python -m benchmarks.soft.run --shared ../shared

Runs go two at a time, one thread each; those that are in --keep already are read, not repeated.
``--short`` runs the main rows, three seeds, in some 20 minutes; its page goes beside the runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks import runs
from benchmarks.soft import page
from benchmarks.soft.cases import SHORT, cases
from benchmarks.soft.collect import collected

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.soft.run --shared DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--short", action="store_true", help="the main rows; its page goes to --keep"
    )
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
        wanted = [case for case in wanted if case.row in SHORT]
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
    target = keep if arguments.short else HERE
    runs.write(results, target / "results.json")
    page.write(results, target)
    print(target / "README.md")


if __name__ == "__main__":
    main()
