"""Memory of a large population: the same texts among few clients or very many.

python -m benchmarks.speed.population WORKLOAD_FOLDER OUT.json CLIENTS ROUNDS [KEY=VALUE ...]

Ten clients a round keep a private head each. Peak memory is the process' own; the state touched is
what the clients' files hold. Afterwards states are read back, from memory and from files.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from airtune.build import build, session
from airtune.experiment import read_experiment
from airtune.federation.client_states import ClientStates


def main() -> None:
    folder, target, clients, rounds = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:5])
    overrides = [
        f"clients.count={clients}", "clients.per_round=10", "clients.test_fraction=0.5",
        'method={name: fedavg, private: ["classifier.*"]}', "machine.threads=2",
        f"train.rounds={rounds}", f"train.evaluate_every={rounds}", *sys.argv[5:],
    ]  # fmt: skip
    experiment = read_experiment(folder / "experiment.yaml", overrides)
    started = time.perf_counter()
    parts = build(experiment)
    built = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as out:
        progress = session(parts, experiment, Path(out))
        for _ in progress.rounds():
            pass
        peak = _peak_bytes()
        at_end = psutil.Process().memory_info().rss
        index = parts.clients.states.write()
        files = sum(file.stat().st_size for file in Path(out, "checkpoint", "clients").iterdir())
        touched = list(parts.clients.states)
        held = _milliseconds(parts.clients.states, touched)
        cold = ClientStates(0.0)
        cold.open(Path(out, "checkpoint", "clients"), index)
        read = _milliseconds(cold, touched)
    result = {
        "clients": clients, "peak_bytes": peak, "end_bytes": at_end,
        "build_seconds": built, "touched": len(touched),
        "state_bytes": files, "from_memory_ms": held, "from_files_ms": read,
    }  # fmt: skip
    target.write_text(json.dumps(result))


def _peak_bytes() -> int:
    """Return this program's own high-water mark; getrusage would include the parent's at fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def _milliseconds(states: ClientStates, clients: list[int]) -> float:
    taken = []
    for client in clients:
        started = time.perf_counter()
        states.get(client)
        taken.append(1e3 * (time.perf_counter() - started))
    return median(taken)


if __name__ == "__main__":
    main()
