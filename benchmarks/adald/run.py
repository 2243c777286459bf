"""AdaLD, its baselines and our coding; writes results.json, figure.png and README.md.

    .venv/bin/python -m benchmarks.adald.run --shared ../shared

Runs go two at a time, one thread each; those that are in --keep already are read, not repeated.
``--short`` runs seed 0 of the rows that claims are about: a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import runs
from benchmarks.adald import page, proxy
from benchmarks.adald.cases import CLAIMED, Inputs, cases

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.adald.run --shared DIR"
HEAD = 8 * (32 + 19)  # bits of container and header around a coded message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--groups", nargs="+", help="only groups that start with one of these")
    parser.add_argument("--short", action="store_true", help="seed 0 of claims' rows only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    parser.add_argument("--page", action="store_true", help="write the page of what is in --keep")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    shared = arguments.shared
    inputs = Inputs(
        shared / "data" / "banking77",
        shared / "models" / "minilm-l6-v2",
        shared / "models" / "stories260k",
        shared / "data" / "tinystories" / "stories.jsonl.gz",
        shared / "data" / "shakespeare" / "by_character.jsonl.gz",
        keep / "one-token-language",
    )
    proxy.build(inputs.minilm, inputs.banking77, inputs.proxy)
    wanted = list(cases(inputs, arguments.seeds, arguments.table_seeds))
    if arguments.short:
        wanted = [c for c in wanted if c.seed == 0 and c.row in CLAIMED.get(c.group, ())]
    if arguments.groups:
        wanted = [case for case in wanted if case.group.startswith(tuple(arguments.groups))]
    if not arguments.page:
        runs.execute(wanted, keep, arguments.processes)
    found = {
        case: collected(keep / case.folder) for case in wanted if runs.done(keep / case.folder)
    }
    if not found:
        raise SystemExit("nothing is measured yet.")
    results = page.results(found, COMMAND, runs.machine(), runs.versions("constriction"))
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page.write(results, HERE)


def collected(folder: Path) -> dict[str, Any]:
    """What is kept of a run: its curve, its totals and what became of its uploads."""
    import airtune

    run = airtune.load(folder)
    history, uploads = run.history, run.uploads
    columns = ["accuracy", "perplexity", "total_uplink_bits", "total_downlink_bits",
               "total_seconds"]  # fmt: skip
    kept: dict[str, Any] = {
        name: [None if value != value else round(float(value), 4) for value in history[name]]
        for name in columns
    }
    method = yaml.safe_load((folder / "experiment.yaml").read_text())["method"]
    kept["dense_bits_16"] = run.summary["payload_bits"] * 16 / method.get("value_bits", 32)
    kept["largest_bits"] = int(uploads["bits"].max())
    kept["personal_accuracy"] = run.summary["personal_accuracy"]
    kept["wall_seconds"] = run.summary["wall_seconds"]
    kept["statuses"] = {k: int(v) for k, v in uploads["status"].value_counts().items()}
    if "k" in uploads:
        sent = uploads[uploads["k"].notna()]
        kept["k"] = [round(float(sent["k"].mean()), 2), int(sent["k"].min()), int(sent["k"].max())]
        kept["retreats"] = int(sent["retreat"].notna().sum()) if "retreat" in sent else 0
    if "model_bits" in uploads:
        coded = uploads[uploads["model_bits"].notna() & (uploads["bits"] > 0)]
        kept["over_model"] = round(float(((coded["bits"] - HEAD) / coded["model_bits"]).max()), 4)
    return kept


if __name__ == "__main__":
    main()
