"""Personal tuning on other data: AG News, and Shakespeare's characters with a decoder.

    .venv/bin/python -m benchmarks.pwff.others --shared ../shared

Writes others.json and OTHERS.md; runs that are in --keep already are read, not repeated.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.claims import Claims
from benchmarks.pwff.claims import standard_error

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.pwff.others --shared DIR"
SEEDS = (0,)
BOTH, ADAPTER = "lora+bottleneck", "bottleneck"
SHARING: dict[str, tuple[str, dict[str, Any]]] = {
    "PFTT": (BOTH, {"name": "pftt"}),
    "PFTT+": (BOTH, {"name": "pftt_plus"}),
    "adapter shared": (ADAPTER, {"name": "fedavg"}),
    "both shared": (BOTH, {"name": "fedavg"}),
    "local": (BOTH, {"name": "fedavg", "private": ["*"]}),
}
ROWS = {
    "ag_news": tuple(SHARING),
    "shakespeare": tuple(row for row in SHARING if row != "PFTT+"),  # a decoder has no classes
}


@dataclass(frozen=True)
class Case:
    """One run: its row, data and seed, and its experiment."""

    row: str
    data: str
    seed: int
    values: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """The name of its run directory."""
        return f"{self.data}-{self.row}-{self.seed}".replace(" ", "-")


def cases(shared: Path) -> Iterator[Case]:
    """Yield all cases, seed by seed."""
    for seed in SEEDS:
        for data, rows in ROWS.items():
            yield from (case(shared, row, data, seed) for row in rows)


def case(shared: Path, row: str, data: str, seed: int) -> Case:
    """Ten clients: 600 news texts at Dirichlet 0.5, or the characters who speak most."""
    kind, method = SHARING[row]
    news = data == "ag_news"
    adapter: dict[str, Any] = {"kind": kind, "bottleneck": 16}
    if news:
        adapter["top_layers"] = 2
    if kind == BOTH:
        targets = ["query", "value"] if news else ["q_proj", "v_proj"]
        adapter |= {"rank": 8, "alpha": 16, "targets": targets}
    values: dict[str, Any] = {
        "adapter": adapter,
        "cell": {"ideal": True},
        "train": {
            "rounds": 8, "local_steps": 5, "batch_size": 10, "learning_rate": 4e-3,
            "evaluate_every": 8,
        },
        "machine": {"threads": 1, "checkpoint_every": 1000},
        "method": method,
        "seed": seed,
    }  # fmt: skip
    folder = shared / "data" / data
    if news:
        values |= {
            "model": {
                "name": str(shared / "models" / "minilm-l6-v2"), "max_tokens": 24,
                "prototypes": 10,
            },
            "data": {
                "name": data, "train": str(folder / "train.csv.gz"),
                "test": str(folder / "test.csv.gz"), "label": "category", "train_limit": 1240,
                "test_limit": 1000,
            },
            "clients": {"partition": "dirichlet", "alpha": 0.5, "test_fraction": 0.5},
        }  # fmt: skip
    else:
        values |= {
            "model": {"name": str(shared / "models" / "stories260k"), "max_tokens": 64},
            "data": {
                "name": data, "train": str(folder / "by_character.jsonl.gz"), "test_limit": 200,
            },
            "clients": {"partition": "column", "column": "character", "test_fraction": 0.3},
        }  # fmt: skip
    values["clients"] |= {"count": 10, "global_texts": 200}
    return Case(row, data, seed, values)


def collected(folder: Path, data: str) -> dict[str, Any]:
    """What is kept of a run: accuracies of classes, or perplexities of tokens, by client."""
    import airtune

    said = airtune.load(folder).summary
    scores = said["personal_scores"]
    personal = {c: own["accuracy"] for c, own in scores.items()}
    common = said["accuracy"]
    if data == "shakespeare":
        personal = {c: math.exp(own["loss"]) for c, own in scores.items()}
        common = said["perplexity"]
    return {
        "personal": {name: round(value, 4) for name, value in personal.items()},
        "common": round(common, 4),
        "upload_bits": said["payload_bits"],
        "wall_seconds": round(said["wall_seconds"], 1),
    }


def claims(rows: dict[tuple[str, str], dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return PFTT, and ours, less every other row: paired by client and seed."""
    found = Claims(COMMAND)
    for data, titles in ROWS.items():
        for own in ("PFTT", "PFTT+"):
            for other in titles:
                if own not in titles or other == own:
                    continue
                values = [
                    mine["personal"][client] - rows[other, data][seed]["personal"][client]
                    for seed, mine in rows[own, data].items()
                    for client in mine["personal"]
                ]
                unit = "accuracy" if data == "ag_news" else "perplexity (less is better)"
                what = (
                    f"{data}: {own} less {other}, personal {unit} (standard error "
                    f"{standard_error(values):.4f})"
                )
                gain = statistics.fmean(values)
                found.add(f"1-{data}-{own}-{other}", what, "as measured", [gain], None)
    return found.found


def page(results: dict[str, Any], rows: dict[tuple[str, str], dict[int, dict[str, Any]]]) -> str:
    """Return the page: differences and a table for each data set."""
    parts = [
        "# Personal tuning on other data\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is written by it. "
        "Eight rounds of 5 steps, ten clients. AG News: MiniLM, Dirichlet 0.5, 1,200 texts of 24 "
        "tokens, of which half test, a frozen head of 10 public texts of each class; accuracy. "
        "Shakespeare: stories260k, the ten characters who speak most are the clients; perplexity "
        "of tokens, less is better. Differences are as measured, there is no target.\n",
        "| id | what | measured |",
        "|---|---|---|",
        *(f"| {c['id']} | {c['what']} | {c['measured'][0]:.4g} |" for c in results["claims"]),
    ]
    for data, titles in ROWS.items():
        parts += [
            f"\n## {data}\n",
            "| shared | personal, by seed | server's model, all texts | kbit up |",
            "|---|---|---|---|",
        ]
        for title in titles:
            kept = rows[title, data].values()
            personal = ", ".join(f"{statistics.fmean(k['personal'].values()):.3f}" for k in kept)
            common = ", ".join(f"{k['common']:.3f}" for k in kept)
            bits = statistics.fmean(k["upload_bits"] for k in kept) / 1e3
            parts.append(f"| {title} | {personal} | {common} | {bits:.0f} |")
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the run directories go or are")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    wanted = list(cases(arguments.shared))
    runs.execute(wanted, keep, arguments.processes)
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for each in wanted:
        kept = collected(keep / each.folder, each.data)
        rows.setdefault((each.row, each.data), {})[each.seed] = kept
    results = {
        "claims": claims(rows),
        "command": COMMAND,
        "machine": runs.machine(),
        "seeds": list(SEEDS),
        "versions": runs.versions(),
        "rows": {" | ".join(key): by_seed for key, by_seed in rows.items()},
    }
    runs.write(results, HERE / "others.json")
    (HERE / "OTHERS.md").write_text(page(results, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
