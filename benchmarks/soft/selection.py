"""Time of choosing components on a client; writes selection.json and prints a table.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.soft.selection

SOFT's scores against truncated SVDs, of the product B A and of its change, on one thread. All ways
take turns in one process, so that a busy machine slows all of them.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from airtune.learning import low_rank
from airtune.learning.components import Components
from airtune.learning.low_rank import Factors, factor_names
from benchmarks import runs
from benchmarks.soft.claims import claim

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.soft.selection"
SIZES = (384, 8), (768, 16), (2048, 16)  # width and rank of one matrix
MATRICES, MINILM = 4, (384, 8)  # query and value of two layers
SECONDS, LEAST = 60.0, 11  # per size: how long it is measured, and the fewest repetitions
CHEAP_S, TIMES = 2e-3, 20  # what is faster is timed so often in its turn

NORMS, CHANGE = "norms", "change"
SVDS = {
    "full": "torch.linalg.svd of the product",
    "lowrank": "torch.svd_lowrank of the product",
    "qr": "exact SVD through QR of the factors",
}
OF = {NORMS: "B A", CHANGE: "change of B A"}
Way = Callable[[], object]
Times = dict[str, list[float]]


def ways(width: int, rank: int) -> dict[str, Way]:
    """Ways to choose a quarter of the components of one matrix, by name."""
    old, new = _pair(width, rank, torch.Generator().manual_seed(0))
    keep = rank // 4

    def formed(change: bool) -> Tensor:
        return new.b @ new.a - old.b @ old.a if change else new.b @ new.a

    def full(change: bool) -> Tensor:
        u, values, v = torch.linalg.svd(formed(change), full_matrices=False)
        return (u[:, :keep] * values[:keep]) @ v[:keep]

    def lowrank(change: bool) -> Tensor:
        # As many columns as the product has ranks: fewer would miss some of it.
        u, values, v = torch.svd_lowrank(formed(change), 2 * rank if change else rank)
        return (u[:, :keep] * values[:keep]) @ v[:, :keep].mT

    def qr(change: bool) -> Factors:
        return low_rank.truncated(low_rank.difference(new, old) if change else new, keep)

    svds = {"full": full, "lowrank": lowrank, "qr": qr}
    return {
        NORMS: lambda: low_rank.importance(new),
        CHANGE: lambda: low_rank.change(new, old),
    } | {
        f"{name} of {OF[score]}": lambda svd=svd, score=score: svd(score == CHANGE)
        for name, svd in svds.items()
        for score in OF
    }


def whole_adapter() -> dict[str, Way]:
    """Ways to choose a quarter of the components of MiniLM's four matrices, ranking included."""
    width, rank = MINILM
    draw = torch.Generator().manual_seed(0)
    old: dict[str, Tensor] = {}
    new: dict[str, Tensor] = {}
    for number in range(MATRICES):
        before, after = _pair(width, rank, draw)
        a, b = factor_names(f"layer.{number}")
        old |= {a: before.a, b: before.b}
        new |= {a: after.a, b: after.b}
    components = Components({n: tuple(t.shape) for n, t in new.items()}, lambda name: True)

    def svd(change: bool) -> list[Factors]:
        products = []
        for matrix in components.parts:
            product = low_rank.factors(new, matrix)
            if change:
                product = low_rank.difference(product, low_rank.factors(old, matrix))
            products.append(low_rank.truncated(product, rank // 4))
        return products

    return {
        NORMS: lambda: components.ranked(components.norms(new) ** 2, "matrix"),
        CHANGE: lambda: components.ranked(components.changes(new, old) ** 2, "matrix"),
        f"qr of {OF[NORMS]}": lambda: svd(False),
        f"qr of {OF[CHANGE]}": lambda: svd(True),
    }


def _pair(width: int, rank: int, draw: torch.Generator) -> tuple[Factors, Factors]:
    """Factors before and after a round; which numbers they hold makes no difference in time."""
    old = Factors(*(torch.randn(*s, generator=draw) for s in ((rank, width), (width, rank))))
    new = Factors(*(each + 0.1 * torch.randn(each.shape, generator=draw) for each in old))
    return old, new


def measured(these: dict[str, Way], seconds: float) -> Times:
    """Return the seconds of each repetition; the ways take turns in an order drawn anew."""
    found: Times = {name: [] for name in these}
    once = {}
    for name, way in these.items():
        way()
        once[name] = _seconds(way)
    order, drawn = list(these), random.Random(0)
    started = time.perf_counter()
    turns = 0
    while turns < LEAST or time.perf_counter() - started < seconds:
        drawn.shuffle(order)
        for name in order:
            times = TIMES if once[name] < CHEAP_S else 1
            found[name] += [_seconds(these[name]) for _ in range(times)]
        turns += 1
    return found


def _seconds(way: Way) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Median, 5th and 95th percentile in milliseconds, and how many repetitions."""
    found = {}
    for name, seconds in times.items():
        cuts = statistics.quantiles(seconds, n=20, method="inclusive")
        low, middle, high = (round(1e3 * s, 5) for s in (cuts[0], cuts[9], cuts[-1]))
        found[name] = {"ms": middle, "p5": low, "p95": high, "count": len(seconds)}
    return found


def claims(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Claim 3: a score takes at most 5 % of the SVD that would choose the same."""
    sizes = [_title(*size) for size in SIZES]
    found = []
    for score, of in OF.items():
        for svd, words in SVDS.items():
            ratios = [100 * rows[s][score]["ms"] / rows[s][f"{svd} of {of}"]["ms"] for s in sizes]
            found.append(
                claim(f"3-{score}-{svd}", f"time of SOFT's scores by {score} / {words}, of {of} "
                      f"in % ({'; '.join(sizes)})", "<= 5 at every size", ratios,
                      max(ratios) <= 5, COMMAND)
            )  # fmt: skip
    return found


def _title(width: int, rank: int) -> str:
    return f"d {width}, r {rank}"


def table(results: dict[str, Any]) -> str:
    """Return the section of the page: medians in milliseconds, and the share that a score takes."""
    lines = ["| choosing | " + " | ".join(results["rows"]) + " |"]
    lines.append("|---" * (1 + len(results["rows"])) + "|")
    names = list(dict.fromkeys(name for row in results["rows"].values() for name in row))
    for name in names:
        kind, _, of = name.partition(" of ")
        cells = [f"{SVDS[kind]}, {of}" if of else f"**SOFT, scores by {name}**"]
        for row in results["rows"].values():
            if name not in row:
                cells.append("")
                continue
            own = row[name]
            score = row[CHANGE if of == OF[CHANGE] else NORMS]["ms"]
            share = f"; SOFT takes {100 * score / own['ms']:.2g} %" if of else ""
            cells.append(f"{own['ms']:.3g} ({own['p5']:.3g} to {own['p95']:.3g}){share}")
        lines.append("| " + " | ".join(cells) + " |")
    text = (
        f"Measured on {results['machine']} by `{results['command']}`, one thread; raw figures in "
        "`selection.json`. Milliseconds: median (5th to 95th percentile). Scores and the SVD "
        "through QR count in double precision as airtune does, the others in single; SVDs "
        "include forming the product. The last column has all four matrices of the MiniLM case, "
        "by the code that clients run, ranking included.\n"
    )
    return text + "\n" + "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    rows = {_title(*size): summary(measured(ways(*size), SECONDS)) for size in SIZES}
    width, rank = MINILM
    four = f"{MATRICES} matrices, {_title(width, rank)}"
    everything = {**rows, four: summary(measured(whole_adapter(), SECONDS / 4))}
    results = {
        "claims": claims(everything),
        "command": COMMAND,
        "machine": runs.machine(),
        "versions": runs.versions(),
        "seeds": [0],
        "rows": everything,
    }
    (HERE / "selection.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    for each in results["claims"]:
        print(each["id"], each["measured"], each["holds"])


if __name__ == "__main__":
    main()
