"""The offline choice of the rank against a sweep of all ranks; writes rank.json.

    .venv/bin/python -m benchmarks.soft.rank --shared ../shared

Every rank runs under the same cell and budget of latency (SOFT + TSFA on weak links, alpha = 2 r).
The choice sees training texts alone; the sweep is judged on all test texts after the last round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.soft import cases as of
from benchmarks.soft.collect import collected

HERE = Path(__file__).parent
COMMAND = "python -m benchmarks.soft.rank --shared DIR"
RANKS = (1, 2, 4, 8, 16, 32)
WAYS = ("surrogate", "pilot")

Sweep = Mapping[int, Mapping[int, dict[str, Any]]]  # rank -> seed -> what is kept of a run
Plans = Mapping[str, Mapping[int, dict[str, Any]]]  # way -> seed -> what the choice rests on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where runs and choices go or are")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp())
    wanted = {(r, seed): _case(arguments.shared, r, seed)
              for seed in arguments.seeds for r in RANKS}  # fmt: skip
    plans: dict[str, dict[int, dict[str, Any]]] = {way: {} for way in WAYS}
    for seed in arguments.seeds:
        for way in WAYS:
            plans[way][seed] = _chosen(wanted[8, seed], way, keep / f"{way}-{seed}.json")
    plans["surrogate, normalised"] = {s: with_normalised(p) for s, p in plans["surrogate"].items()}
    runs.execute(list(wanted.values()), keep, arguments.processes)
    sweep: dict[int, dict[int, dict[str, Any]]] = {rank: {} for rank in RANKS}
    for (rank, seed), case in wanted.items():
        sweep[rank][seed] = collected(keep / case.folder) | {"loss": _loss(keep / case.folder)}
    results = {
        "claims": claims(sweep, plans),
        "command": COMMAND,
        "machine": runs.machine(),
        "versions": runs.versions("scipy"),
        "seeds": arguments.seeds,
        "sweep": sweep,
        "plans": plans,
    }
    runs.write(results, HERE / "rank.json")
    for rank, kept in sweep.items():
        print(rank, *(f"{each['accuracy'][-1]:.4f} {each['loss']:.4f}" for each in kept.values()))
    for claim in results["claims"]:
        print(claim["id"], claim["what"], claim["measured"], claim["holds"])


def with_normalised(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the surrogate's choice had its terms been normalised instead of weighed by a fit."""
    from airtune.planning.surrogate import Terms, choose, normalised

    ranks = [row["rank"] for row in plan["ranks"]]
    terms = [Terms(row["phi"], row["dropped"], row["covariance"]) for row in plan["ranks"]]
    weights = normalised(ranks, terms)
    costs = [weights.value(each) for each in terms]
    return {"chosen": choose(ranks, costs), "u": costs, "weights": weights.c._asdict()}


def claims(sweep: Sweep, plans: Plans) -> list[dict[str, Any]]:
    """Whether each choice is within one step of the best rank of its seed; and the sweep's shape.

    The best is by final accuracy, the mean over seeds for the shape.
    """
    found = []
    ranks = sorted(sweep)
    for way, by_seed in plans.items():
        steps, regrets = [], []
        for seed, plan in sorted(by_seed.items()):
            accuracy = {rank: sweep[rank][seed]["accuracy"][-1] for rank in ranks}
            best = max(ranks, key=accuracy.__getitem__)
            steps.append(ranks.index(plan["chosen"]) - ranks.index(best))
            regrets.append(round(accuracy[best] - accuracy[plan["chosen"]], 4))
        found.append(
            _claim(f"6-{way}", f"steps from the sweep's best to the choice by {way}",
                   "-1 to 1 for every seed", steps, all(abs(step) <= 1 for step in steps))
        )  # fmt: skip
        found.append(
            _claim(f"6-{way}-regret", f"accuracy of the best less that of the choice by {way}",
                   "as measured", regrets, None)
        )  # fmt: skip
    means = [_mean(sweep[rank]) for rank in ranks]
    top = means.index(max(means))
    found.append(
        _claim("6-shape", f"mean final accuracy of ranks {ranks}: best inside the range",
               "neither the smallest nor the largest rank is best",
               [round(each, 4) for each in means], 0 < top < len(ranks) - 1)
    )  # fmt: skip
    return found


def table(results: dict[str, Any]) -> str:
    """Return the section of the page: the sweep, and what each way chose."""
    seeds = results["seeds"]
    lines = [
        f"Measured on {results['machine']} by `{results['command']}`; raw figures in `rank.json`. "
        "SOFT + TSFA on weak links, 20 rounds, alpha twice the rank; final accuracy on all test "
        f"texts, seeds {', '.join(map(str, seeds))} (mean). Choices see training texts alone.\n",
        "| rank | final accuracy | mean | error dropped | Mbit up | chosen by |",
        "|" + "---|" * 6,
    ]
    for rank, by_seed in results["sweep"].items():
        kept = list(by_seed.values())
        chosen = [
            f"{way} (seed {seed})"
            for way, plans in results["plans"].items()
            for seed, plan in plans.items()
            if plan["chosen"] == int(rank)
        ]
        accuracy = [each["accuracy"][-1] for each in kept]
        cells = [
            rank,
            ", ".join(f"{each:.3f}" for each in accuracy),
            f"{statistics.fmean(accuracy):.3f}",
            f"{statistics.fmean(each['drop_error'] for each in kept):.2f}",
            f"{statistics.fmean(each['uplink_bits'] for each in kept) / 1e6:.0f}",
            ", ".join(chosen),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _claim(
    name: str, what: str, target: str, measured: Sequence[float], holds: bool | None
) -> dict[str, Any]:
    return {
        "id": name, "what": what, "target": target, "measured": list(measured), "holds": holds,
        "command": COMMAND,
    }  # fmt: skip


def _mean(by_seed: Mapping[int, dict[str, Any]]) -> float:
    return statistics.fmean(each["accuracy"][-1] for each in by_seed.values())


def _case(shared: Path, rank: int, seed: int) -> of.Case:
    """One rank under the budget; accuracy counts at the end alone."""
    sections = of.WEAK | {
        "adapter": {"rank": rank, "alpha": 2 * rank}, "train": {"evaluate_every": 10},
    }  # fmt: skip
    return of._case(shared, (f"rank {rank}", of.TSFA, sections), seed)


def _chosen(case: of.Case, way: str, path: Path) -> dict[str, Any]:
    """Return the offline choice, which is kept beside the runs."""
    from airtune.experiment import Experiment
    from airtune.planning.rank import plan_rank

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        found = plan_rank(Experiment(**case.values), RANKS, by=way)
        found["wall_seconds"] = round(time.perf_counter() - started, 1)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    kept: dict[str, Any] = json.loads(path.read_text())
    print(way, case.seed, kept["chosen"], f"{kept['wall_seconds']} s", flush=True)
    return kept


def _loss(folder: Path) -> float:
    import airtune

    return round(float(airtune.load(folder).summary["loss"]), 4)


if __name__ == "__main__":
    main()
