"""A run over really shaped links: are grants what the links carry? Writes results.json, README.md.

    OMP_NUM_THREADS=1 python -m benchmarks.shaped_links.run

Needs root, iproute2 and the extra ``flower``; without them it says so and ends. ``--only CASE``
runs one case again and keeps the others, ``--page`` runs none. Seconds are those of this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.claims import table
from benchmarks.shaped_links import bed, page
from benchmarks.shaped_links.exchanges import exchanges
from benchmarks.shaped_links.trial import run

HERE = Path(__file__).parent
RATES, DOWN = [1.0, 2.0, 5.0, 20.0], 20.0  # Mbit/s up and down
DEADLINE_S = 25.0

DENSE = {"name": "fedavg"}
ADAPTIVE = {"name": "soft", "control": "none"}
# Name, method, deadline, rounds, and rates that change after a round. Who cannot send everything by
# a deadline is not asked to, so the dense case is judged by one and has none.
CASES: dict[str, tuple[dict[str, Any], float | None, int, dict[int, dict[int, float]]]] = {
    "dense": (DENSE, None, 8, {}),
    "adaptive": (ADAPTIVE, DEADLINE_S, 20, {}),
    "changing": (ADAPTIVE, DEADLINE_S, 12, {4: {0: 3.0, 2: 1.5}, 8: {0: 1.0, 2: 5.0}}),
}


def values(case: str) -> dict[str, Any]:
    """Return a case's experiment: four devices, a sentence encoder, LoRA of rank 64."""
    method, deadline, rounds, _ = CASES[case]
    return {
        "name": case,
        "adapter": {"rank": 64, "alpha": 64},
        "clients": {"count": len(RATES), "partition": "iid"},
        "cell": {"measured": True, "deadline_s": deadline},
        "method": method,
        "train": {
            "rounds": rounds, "local_steps": 2, "batch_size": 8, "evaluate_every": rounds,
            "learning_rate": 1e-3,
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--page", action="store_true")
    options, path = parser.parse_args(), HERE / "results.json"
    if not options.page:
        why = bed.missing()
        if find_spec("flwr") is None:
            why = "Flower is not installed: pip install 'airtune[flower]'"
        if why is not None:
            print(f"skipped: {why}")
            sys.exit(0)
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"] if options.only else {}
        for case in [options.only] if options.only else CASES:
            print(case, flush=True)
            cases[case] = exchanges(run(values(case), RATES, DOWN, CASES[case][3]))
            found = {
                "machine": runs.machine(), "versions": runs.versions("flwr"),
                "rates_mbit": RATES, "down_mbit": DOWN, "deadline_s": DEADLINE_S,
                "changes": {name: CASES[name][3] for name in cases}, "cases": cases,
            }  # fmt: skip
            runs.write(found, path)  # what is measured is kept, whatever comes
    results = json.loads(path.read_text(encoding="utf-8"))
    if missing := CASES.keys() - results["cases"].keys():
        print(f"no page yet: {', '.join(sorted(missing))} not measured")
        return
    results["claims"] = page.judged(results)
    runs.write(results, path)
    (HERE / "README.md").write_text(page.written(results, HERE), encoding="utf-8")
    print("\n".join(table(results["claims"])))


if __name__ == "__main__":
    main()
