"""Delay and energy of a round in a Rayleigh cell, without training; writes radio.json, RADIO.md.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.pwff.radio --shared ../shared

The cell, the division of the band and the air are the house's own. All clients stand at the
distance that gives the mean SNR over a tenth of the band; Rayleigh fading does the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from airtune.learning.sparse_attention import share_kept
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.compute import compute_joules, compute_seconds
from airtune.radio.config import CellConfig
from airtune.radio.units import Floats
from airtune.scheduling.allocate import allocate
from benchmarks import runs
from benchmarks.pwff import radio_page
from benchmarks.pwff.systems import System, gpt2, measured

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.pwff.radio --shared DIR"
CLIENTS, ROUNDS, SEED = 10, 300, 0
WINDOW, STRIDE, LENGTHS = 64, 16, (50, 200, 512, 1024)  # sparse attention, and texts' tokens
SNR_DB = (0.0, 5.0, 10.0, 20.0)
VALUES: dict[str, Any] = {  # 1 MHz for each client, phones at 23 dBm
    "preset": "legacy-macro", "shadowing_db": 0.0, "bandwidth_hz": CLIENTS * 1e6,
}  # fmt: skip


def cell_at(snr_db: float) -> CellConfig:
    """Return the cell whose clients all have this mean SNR over their part of the band.

    ``loss = P / (N0 F b SNR)``; the preset's path loss, ``128.1 + 37.6 log10(d_km)``, inverted.
    """
    base = CellConfig(**VALUES)
    share_hz = base.bandwidth_hz / CLIENTS
    loss_db = 10 * np.log10(base.power_w / (base.noise_w_per_hz * share_hz)) - snr_db
    distance = float(1000 * 10 ** ((loss_db - 128.1) / 37.6))
    return CellConfig(**VALUES, min_distance_m=distance, radius_m=distance * (1 + 1e-6))


def radio_of_rounds(bits: int, cell: Cell, compute_s: float, rounds: int) -> dict[str, Floats]:
    """Send ``bits`` down and up in each round; return what each round took, [rounds].

    ``down`` and ``up`` are seconds, the latter of the last client to be through; ``joules`` those
    of all clients for sending and listening, ``absent`` the share that did not send.
    """
    air, everybody = Air(cell.config, cell.seed), np.arange(len(cell.mean_gain))
    found: dict[str, list[float]] = {key: [] for key in ("down", "up", "joules", "absent")}
    for round in range(1, rounds + 1):
        links = cell.links(round)
        plan = allocate(links, everybody, bits, bits, compute_s, cell.config)
        listeners = np.fromiter(plan.grants, dtype=np.int64)
        cast = air.downlink(bits, links, listeners)
        heard = listeners[cast.heard] if len(listeners) else listeners
        trips = [air.uplink(bits, links, plan.grants[int(client)]) for client in heard]
        found["down"].append(cast.seconds)
        found["up"].append(max((trip.seconds for trip in trips), default=0.0))
        found["joules"].append(
            cast.joules * len(listeners) + sum(trip.joules for trip in trips)
        )  # fmt: skip
        found["absent"].append(1.0 - sum(trip.arrived for trip in trips) / len(everybody))
    return {key: np.array(values) for key, values in found.items()}


def rows(systems: Iterable[System], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each system and SNR: means over rounds, in seconds and in joules of all."""
    for system in systems:
        for snr_db in SNR_DB:
            config = cell_at(snr_db)
            devices = config.devices
            seconds, joules = (
                [float(cost(devices, 0, system.flops(way))) for way in (system.whole, system.early)]
                for cost in (compute_seconds, compute_joules)
            )
            radio = radio_of_rounds(system.bits, Cell(config, CLIENTS, SEED), seconds[0], rounds)
            taking_part = CLIENTS * (1.0 - float(radio["absent"].mean()))
            yield {
                "model": system.model,
                "system": system.title,
                "snr_db": snr_db,
                "bits": system.bits,
                "model_parameters": system.parameters,
                "down_s": _digits(radio["down"].mean()),
                "up_s": _digits(radio["up"].mean()),
                "median_radio_s": _digits(np.median(radio["down"] + radio["up"])),
                "compute_s": _digits(seconds[0]),
                "compute_early_s": _digits(seconds[1]),
                "radio_j": _digits(radio["joules"].mean()),
                "compute_j": _digits(joules[0] * taking_part),
                "compute_early_j": _digits(joules[1] * taking_part),
                "absent": _digits(radio["absent"].mean()),
            }
        print(f"{system.model}: {system.title}", flush=True)


def _digits(value: float) -> float:
    return float(f"{float(value):.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    found = list(rows([*measured(arguments.shared), *gpt2()], arguments.rounds))
    results = {
        "claims": radio_page.claims(found, COMMAND),
        "command": COMMAND,
        "machine": runs.machine(),
        "versions": runs.versions(),
        "seeds": [SEED],
        "setting": {
            "clients": CLIENTS,
            "rounds": arguments.rounds,
            "cell": VALUES,
            "device": CellConfig().devices[0].model_dump(),
            "window": WINDOW,
            "stride": STRIDE,
            "entries_kept": {str(n): _digits(share_kept(n, WINDOW, STRIDE)) for n in LENGTHS},
            "distance_m": {f"{snr:g} dB": round(cell_at(snr).min_distance_m) for snr in SNR_DB},
        },
        "rows": found,
    }
    runs.write(results, HERE / "radio.json")
    (HERE / "RADIO.md").write_text(radio_page.page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
