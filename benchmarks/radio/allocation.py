"""Min-max-delay bandwidth against a general solver, and its time; writes allocation.json.

    OMP_NUM_THREADS=1 python -m benchmarks.radio.allocation

The general solver is SciPy's SLSQP over all shares and the finish time, with exact derivatives and
from the equal split; for 1,000 clients it takes minutes. ``--clients`` names fewer for a trial;
``--many`` measures 100,000 clients again and keeps the other figures of allocation.json. Wall
seconds are medians; processor seconds are what is left of them where other work shares the cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import minimize

from airtune.radio.rate import RateModel, rate_bps, rate_slope
from airtune.radio.units import Floats
from airtune.scheduling.bandwidth import min_max_delay
from benchmarks import runs
from benchmarks.claims import Claims, table

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.radio.allocation"
MODEL = RateModel()
PER_CLIENT_HZ = 20e3  # so narrow that spectrum, not anybody's power, decides when the last is done
MANY, SEEDS, REPEATS = 100_000, (0, 1, 2), 5
Case = tuple[Floats, Floats, Floats, float]


def drawn(clients: int, seed: int) -> Case:
    """Return payloads in bits, links in Hz, seconds of computing, all [clients], and the band."""
    rng = np.random.default_rng(seed)
    bits, start = rng.uniform(4e6, 2e7, clients), rng.uniform(0.1, 1.0, clients)
    return bits, 10 ** rng.uniform(6.3, 8.5, clients), start, PER_CLIENT_HZ * clients


def timed(case: Case) -> dict[str, Any]:
    """Return the finish time and the seconds that finding it took, medians."""
    wall, processor, finish = [], [], 0.0
    for _ in range(REPEATS):
        started, before = time.perf_counter(), time.process_time()
        _, ends = min_max_delay(*case, MODEL)
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - before)
        finish = float(ends.max())
    return {
        "clients": len(case[0]),
        "finish_s": finish,
        "seconds": median(wall),
        "processor_seconds": median(processor),
    }


def solved(case: Case) -> dict[str, Any]:
    """Return what SLSQP finds: shares x in units of an equal one, and the finish time."""
    bits, snr_hz, start, band = case
    clients = len(bits)
    unit = band / clients
    scale = float((start + bits / rate_bps(unit, snr_hz, MODEL)).max())
    last = np.append(np.zeros(clients), 1.0)
    spent = np.append(np.full(clients, -1.0 / clients), 0.0)[None]

    def slack(x: Floats) -> Floats:
        return x[-1] - (start + bits / rate_bps(x[:-1] * unit, snr_hz, MODEL)) / scale

    def slope(x: Floats) -> Floats:
        rate = rate_bps(x[:-1] * unit, snr_hz, MODEL)
        sooner = bits / rate**2 * rate_slope(x[:-1] * unit, snr_hz, MODEL) * unit / scale
        return np.column_stack([np.diag(sooner), np.ones(clients)])

    started = time.perf_counter()
    found = minimize(
        lambda x: x[-1],
        np.ones(clients + 1),
        jac=lambda x: last,
        method="SLSQP",
        bounds=[(1e-3, clients)] * clients + [(0.0, None)],
        constraints=[
            {"type": "ineq", "fun": slack, "jac": slope},
            {"type": "ineq", "fun": lambda x: 1.0 - x[:-1].mean(), "jac": lambda x: spent},
        ],
        options={"maxiter": 500, "ftol": 1e-8},
    )
    return {
        "finish_s": float(found.fun) * scale,
        "seconds": time.perf_counter() - started,
        "iterations": int(found.nit),
        "success": bool(found.success),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--many", action="store_true")
    options = parser.parse_args()
    path = HERE / "allocation.json"
    many = [{"seed": seed, **timed(drawn(MANY, seed))} for seed in SEEDS]
    if options.many:
        kept = json.loads(path.read_text())
        ours, general = kept["ours"], kept["slsqp"]
    else:
        case = drawn(options.clients, SEEDS[0])
        ours, general = timed(case), {"clients": options.clients, **solved(case)}
    off = abs(general["finish_s"] / ours["finish_s"] - 1.0)
    faster = general["seconds"] / ours["seconds"]

    claims = Claims(COMMAND, digits=15)
    n = f"{ours['clients']:,} clients"
    claims.add("R1", f"{n}: finish time, relative to SLSQP's", "differs by <= 1e-6", [off],
               off <= 1e-6 and general["success"])  # fmt: skip
    claims.add("R2", f"{n}: wall seconds of SLSQP over ours", ">= 100", [round(faster, 1)],
               faster >= 100)  # fmt: skip
    again = Claims(f"{COMMAND} --many", digits=15)
    for name, key in (("processor", "processor_seconds"), ("wall", "seconds")):
        taken = [round(each[key], 4) for each in many]
        what = f"{MANY:,} clients: {name} seconds, for {len(SEEDS)} draws"
        again.add("R3", what, "< 1", taken, max(taken) < 1.0)
    found = [*claims.found, *again.found]
    results = {
        "claims": found,
        "machine": f"{runs.machine()}; other work ran beside it",
        "versions": runs.versions("scipy"),
        "seeds": list(SEEDS),
        "per_client_hz": PER_CLIENT_HZ,
        "ours": ours,
        "slsqp": general,
        "many": many,
    }
    runs.write(results, path)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
