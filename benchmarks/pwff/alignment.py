"""Alignment by clients' own weights (PWFF, PFIT): writes alignment.json and ALIGNMENT.md.

    .venv/bin/python -m benchmarks.pwff.alignment --shared ../shared

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
from benchmarks.pwff import alignment_cases as of
from benchmarks.pwff.alignment_claims import Rows, claims

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.pwff.alignment --shared DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description="Alignment by clients' own weights.")
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    parser.add_argument("--there", action="store_true", help="read what is there, run nothing")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    wanted = list(of.cases(arguments.shared, of.SHORT if arguments.short else of.PLAN))
    if arguments.there:
        wanted = [case for case in wanted if runs.done(keep / case.folder)]
    runs.execute(wanted, keep, arguments.processes)
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for case in wanted:
        rows.setdefault((case.row, case.task), {})[case.seed] = collected(keep / case.folder)
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
    runs.write(results, target / "alignment.json")
    (target / "ALIGNMENT.md").write_text(page(results, rows), encoding="utf-8")


def collected(folder: Path) -> dict[str, Any]:
    """What is kept of a run: scores of clients by their preferences, and costs."""
    import airtune

    said = airtune.load(folder).summary
    names = "reward", "helpful", "safe", "kl"
    by_client = said["personal_scores"]
    return {
        **{name: [round(by_client[c][name], 4) for c in sorted(by_client)] for name in names},
        "start": {
            name: [round(said["personal_scores_untrained"][c][name], 4) for c in sorted(by_client)]
            for name in names[:3]
        },
        "front": said["facts"].get("front"),
        "judges": said["facts"].get("judges"),
        "judges_bits": said["facts"].get("judges_bits"),
        "upload_bits": said["payload_bits"],
        "download_bits": said["downlink_bits"] / said["rounds"],
        "model_bits": 32 * said["parameters"],
        "wall_seconds": round(said["wall_seconds"], 1),
    }


def page(results: dict[str, Any], rows: Rows) -> str:
    """Return the page: claims, and a table for each pair of objectives."""
    parts = [
        "# Alignment\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is written by it. "
        "stories260k, GRPO unless a row says PPO; five clients with a = 0, 0.25, 0.5, 0.75, 1, "
        "each with the prompts of its own topics; 6 rounds of 3 steps of 48 answers of 32 tokens. "
        "Scores are of 168 answers of 40 tokens to 28 held-out prompts on all topics, the same "
        "random numbers for all models (`learned`: six answers to each of 64 held-out "
        "instructions). `harmless`: the untrained model is near the ceiling of "
        "one reward; `caring`: both start low and have the same room; `learned`: heads on the "
        "policy's own frozen features, polite and harmless, in units of the texts that they were "
        "learned from, sent once. KL is to the pretrained "
        "model, in nats of an answer. Settings are those of the pilot, for all rows of a kind of "
        "adapter; they were chosen on the same held-out prompts, so all rows are optimistic. "
        "PPO was also tried on seed 0 of `caring` with lambda 0.8 and 0.95 instead of 1, half and "
        "double the rate, two epochs, and no KL: none was better. Seconds are rough: other work "
        "ran beside.\n",
        "Ours: split weights, PWFF+, equal length (of gradients; Adam's steps hardly depend on "
        "it, so that rows of MGDA without it have about equal steps too). One model for all: "
        "equal weights and the single weights.\n",
        *table(results["claims"], ".3f"),
    ]
    for task in dict.fromkeys(task for _, task in rows):
        parts.append(f"\n## {task}\n")
        parts.append(_table(rows, task))
    return "\n".join(parts) + "\n"


def _table(rows: Rows, task: str) -> str:
    clients = " | ".join(f"a = {a:g}" for a in of.PREFERENCES)
    lines = [
        f"| row | seeds | own-weight reward, by seed | {clients} | helpful | safe | KL | kbit up "
        "| kbit down | s |",
        "|" + "---|" * 14,
    ]
    titles = [row for row, own in rows if own == task]
    untrained = next(iter(rows[titles[0], task].values()))["start"]
    lines.append(_line("untrained", [{**untrained, "kl": [0.0]}]))
    lines += [_line(title, list(rows[title, task].values())) for title in titles]
    return "\n".join(lines)


def _line(title: str, kept: list[dict[str, Any]]) -> str:
    by_seed = ", ".join(f"{statistics.fmean(each['reward']):.3f}" for each in kept)
    clients = [
        f"{statistics.fmean(own):.2f}"
        for own in zip(*(each["reward"] for each in kept), strict=True)
    ]
    means = [
        f"{statistics.fmean(statistics.fmean(each[name]) for each in kept):{form}}"
        for name, form in (("helpful", ".2f"), ("safe", ".2f"), ("kl", ".0f"))
    ]
    up, down, seconds = "", "", ""
    if "upload_bits" in kept[0]:
        up = f"{kept[0]['upload_bits'] / 1e3:.0f}"
        down = f"{kept[0]['download_bits'] / 1e3:.0f}"
        seconds = f"{statistics.fmean(each['wall_seconds'] for each in kept):.0f}"
    return (
        f"| {' | '.join([title, str(len(kept)), by_seed, *clients, *means, up, down, seconds])} |"
    )


if __name__ == "__main__":
    main()
