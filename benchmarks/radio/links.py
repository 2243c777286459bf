"""SNR and airtime by preset, time and memory of a round's links; writes links.json and the page.

    OMP_NUM_THREADS=1 python -m benchmarks.radio.links

``--only distributions`` or ``--only cost`` measures one of them again and keeps the other;
``--page`` measures nothing, and writes README.md and figure.png of the results that are there.
Clients and rounds are drawn by keys, so distributions are the same each time; wall time is not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from airtune.radio.presets import PRESETS
from benchmarks import runs
from benchmarks.claims import table
from benchmarks.radio import claims, cost, page
from benchmarks.radio.distributions import COHORT, LEVELS, PAYLOAD_BITS, distributions

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.radio.links"
CLIENTS, ROUNDS, SEEDS = 2_000, 10, (0, 1, 2)


def drawn() -> list[dict[str, Any]]:
    """Return the distributions of every preset whose links are finite."""
    found = []
    for preset in PRESETS:
        if preset != "ideal":
            found.append(distributions(preset, CLIENTS, ROUNDS, SEEDS))
            print(f"{preset}: median SNR {found[-1]['snr_db'][50]} dB", flush=True)
    return found


def measured() -> dict[str, list[dict[str, Any]]]:
    """Return times and bytes of every cell and size."""
    times, memory = [], []
    for (preset, option), config in cost.cells().items():
        named = {"preset": preset, "option": option}
        times += [named | cost.timed(config, clients) for clients in cost.SIZES]
        print(f"{preset}, {option}: {times[-1]['ms']} ms", flush=True)
        if preset in cost.REMEMBERED and option in cost.OPTIONS:
            memory += [named | cost.remembered(config, clients, 1) for clients in cost.SIZES]
            middle = cost.SIZES[1]
            memory += [named | cost.remembered(config, middle, r) for r in cost.LENGTHS[1:]]
    return {"times": times, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("distributions", "cost"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    path = HERE / "links.json"
    if not options.page:
        kept = json.loads(path.read_text(encoding="utf-8")) if options.only else {}
        if options.only != "cost":
            kept["distributions"] = drawn()
        if options.only != "distributions":
            kept["cost"] = measured()
        results = {
            "claims": claims.claims(kept["distributions"], kept["cost"], COMMAND),
            "command": COMMAND,
            "machine": f"{runs.machine()}; other work ran beside it",
            "versions": runs.versions("scipy"),
            "seeds": list(SEEDS),
            "setting": {
                "clients": CLIENTS,
                "rounds": ROUNDS,
                "cohort": COHORT,
                "payload_bits": PAYLOAD_BITS,
                "timed_rounds": cost.TIMED_ROUNDS,
                "levels": list(LEVELS),
            },
            "distributions": kept["distributions"],
            "cost": kept["cost"],
        }
        runs.write(results, path)
        print("\n".join(table(results["claims"])))
    page.write(HERE)


if __name__ == "__main__":
    main()
