"""Does `airtune plan` say beforehand what a run is charged? Writes results.json and README.md.

    OMP_NUM_THREADS=1 python -m benchmarks.plan.run

``--only CASE`` measures one case again and keeps the others; ``--page`` measures nothing. Both
write README.md of the results that are there. Plans and runs go through the same links, so all but
the seconds of wall time are the same each time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import airtune
from airtune.experiment import Experiment
from airtune.federation.costs import Costs
from airtune.methods.registry import find
from benchmarks import runs
from benchmarks.claims import Claims, table
from benchmarks.plan.cases import CASES, ROUNDS, values

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.plan.run"
MEASURES = ("airtime_s", "round_s", "upload_bits", "downlink_bits", "device_j")
WITHIN, PILOT = 0.03, 2


def measured(title: str, sections: dict[str, Any]) -> dict[str, Any]:
    """Return what the plan of a case said, and what its run was charged."""
    experiment = Experiment(**values(sections))
    started = time.perf_counter()
    planned = airtune.plan(experiment)
    plan_seconds = time.perf_counter() - started
    vary = find(experiment.method.name).sizes_vary
    found: dict[str, Any] = {"case": title, "sizes_vary": vary, "planned": _figures(planned)}
    if vary:
        found["piloted"] = _figures(airtune.plan(experiment, PILOT))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = airtune.run(experiment, Path(folder) / "run")
        found["charged"] = _figures(run.costs)
    wall = plan_seconds, time.perf_counter() - started
    found["plan_seconds"], found["run_seconds"] = (round(each, 1) for each in wall)
    return found


def _figures(costs: Costs) -> dict[str, Any]:
    means = {name: float(f"{getattr(costs, name).mean:.6g}") for name in MEASURES}
    spread = {"airtime_median_s": costs.airtime_s.median, "airtime_high_s": costs.airtime_s.high}
    return means | {k: float(f"{v:.6g}") for k, v in spread.items()} | {"arrived": costs.arrived}


def off(row: dict[str, Any], key: str, name: str = "airtime_s") -> float:
    """Return by which part of the charged figure the foreseen one is off."""
    return float(row[key][name] / row["charged"][name] - 1.0)


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was claimed of plans, and whether it holds."""
    claims = Claims(COMMAND)
    for name, what in (
        ("airtime_s", "airtime of a round, mean"),
        ("airtime_median_s", "its median"),
        ("airtime_high_s", "its 95 % quantile"),
    ):
        plain = [off(row, "planned", name) for row in rows if not row["sizes_vary"]]
        claims.add("P1", f"{what}: plan over ledger less 1, every method whose messages do not "
                   "depend on what is learned", "within 0.03", plain,
                   max(map(abs, plain)) <= WITHIN)  # fmt: skip
    for row in rows:
        if row["sizes_vary"]:
            pair = [off(row, "planned"), off(row, "piloted")]
            claims.add("P2", f"{row['case']}: the same untrained, and by a pilot of {PILOT} rounds",
                       "the pilot within 0.03", pair, abs(pair[1]) <= WITHIN)  # fmt: skip
    return claims.found


def page(results: dict[str, Any]) -> str:
    """Return README.md of the results."""
    lines = [
        "# What a plan says, and what the run is charged\n",
        f"Measured on {results['machine']}. This page is written by `{COMMAND}`; raw figures are "
        "in `results.json`.\n",
        "`airtune plan` goes through an experiment's rounds without learning. Here "
        f"{ROUNDS} rounds of small experiments (ten clients, some fifty texts each; packaged "
        "models and data) are planned, then run, and compared with the run's ledger. Where both "
        "agree to the digit that is no luck: links are keyed by the seed, and a message whose form "
        "is known has its size. With another seed clients lie elsewhere, which no plan knows. "
        "Schedulers that go by what was learned (TSFA) may differ; so do answers that end early "
        "(pfit, pwff_plus: computing). Where messages are as long as what was learned makes them, "
        f"`--pilot {PILOT}` really trains {PILOT} rounds, which are not like later ones where "
        "codes get shorter.\n",
        "## Claims\n",
        "\n".join(table(results["claims"])) + "\n",
        "## Cases\n",
        "| case | airtime of a round, s: plan, ledger | off | round, s | off | energy off | "
        "arrived: plan, ledger | wall s: plan, run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        plan, charged = row["planned"], row["charged"]
        lines.append(
            f"| {row['case']} | {plan['airtime_s']:.4g}, {charged['airtime_s']:.4g} | "
            f"{off(row, 'planned'):+.2%} | {charged['round_s']:.4g} | "
            f"{off(row, 'planned', 'round_s'):+.2%} | {off(row, 'planned', 'device_j'):+.2%} | "
            f"{plan['arrived']:.3f}, {charged['arrived']:.3f} | {row['plan_seconds']}, "
            f"{row['run_seconds']} |"
        )
    lines.append(
        "\nWall seconds are rough: other work ran beside. The run's have its evaluation; both load "
        "model and data."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--page", action="store_true")
    options, path = parser.parse_args(), HERE / "results.json"
    if not options.page:
        kept = {}
        if options.only:
            before = json.loads(path.read_text(encoding="utf-8"))["rows"]
            kept = {row["case"]: row for row in before if row["case"] != options.only}
        rows = []
        for title, sections in CASES.items():
            rows.append(kept.get(title) or measured(title, sections))
            print(f"{title}: {off(rows[-1], 'planned'):+.2%}", flush=True)
        results = {"machine": runs.machine(), "rows": rows, "claims": judged(rows)}
        runs.write(results, path)
    results = json.loads(path.read_text(encoding="utf-8"))
    (HERE / "README.md").write_text(page(results), encoding="utf-8")
    print("\n".join(table(results["claims"])))


if __name__ == "__main__":
    main()
