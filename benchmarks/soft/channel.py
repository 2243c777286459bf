"""The online stage of TSFA without training; writes channel.json and prints tables.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.soft.channel

The scheduler of the house on the links of its radio, round after round; what clients would have
learned is replaced by what their pieces weigh, which never changes here. ``--rounds`` shortens it
for a trial.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Pieces, Upload
from airtune.wire.rank_slices import SLICES, empty_bits, slice_bits
from benchmarks import runs
from benchmarks.soft import channel_page
from benchmarks.soft.cases import WEAK

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.soft.channel"
CLIENTS, SEEDS = 10, (0, 1, 2)
HORIZONS = (20, 200, 1000)  # T; a shorter one is the beginning of a longer one
SLOW, SLOWEST = 200, 20  # the round's queue takes 20 ms a round, exact shares 0.5 s
VS = (1.0, 3.0, 10.0)
USUAL_V = 3.0
COMPUTE_S = 0.074  # of a round on the default device, as in the runs of cases.py

# A cell, and the budget in seconds for computing and sending.
CELLS: dict[str, tuple[dict[str, Any], float]] = {
    "weak": (WEAK["cell"], 0.35),
    "weak, double budget": (WEAK["cell"], 0.7),
    "specification": (
        # 250 m, 0.2 W, 10 MHz, Rayleigh; equal bands at the best rate take 0.142 s for everything.
        {
            "preset": "legacy-macro", "radius_m": 250, "power_dbm": 23, "bandwidth_hz": 10e6,
            "packet_error": 0.0,
        },
        0.16,
    ),
}  # fmt: skip
RANK = 8
SCORES: dict[str, Floats] = {
    "flat": np.full(RANK, 1.0 / RANK),
    "steep": 0.5 ** np.arange(RANK) / (0.5 ** np.arange(RANK)).sum(),  # synthetic
}


@dataclass(frozen=True)
class Scheme:
    """A control with its options, and how many rounds it is followed."""

    title: str
    options: dict[str, Any]
    rounds: int
    sifted: bool = False  # only clients are asked that can keep the budget alone in the band

    @property
    def v(self) -> float | None:
        """V, where the control has one."""
        value: float | None = self.options.get("v")
        return value


@dataclass(frozen=True)
class Life:
    """What a run showed; [rounds, clients], NaN where a client sent nothing.

    ``queue`` is what the control watches after each round, in seconds: the longest of the clients'
    queues, or the round's, [rounds].
    """

    seconds: Floats
    error: Floats
    queue: Floats


def schemes(longest: int) -> Iterator[Scheme]:
    """Yield all that are compared; the dear ones are followed for fewer rounds."""
    slow, slowest = min(SLOW, longest), min(SLOWEST, longest)
    for v in VS:
        yield Scheme("TSFA", {"control": "tsfa", "v": v}, longest)
    for v in VS:
        options = {"control": "tsfa", "bandwidth": "equal", "v": v}
        yield Scheme("TSFA, equal bands", options, longest)
    options = {"control": "tsfa", "bandwidth": "exact", "v": USUAL_V}
    yield Scheme("TSFA, exact shares", options, slowest)
    options = {"control": "tsfa", "v": USUAL_V}
    yield Scheme("TSFA, only those who can", options, longest, sifted=True)
    for v in VS:
        yield Scheme("TSFA, round's slowest", {"control": "round", "v": v}, slow)
    for title, control in (
        ("limit for each upload", "limit"),
        ("a fixed part for each client", "client_ratio"),
        ("one fixed part for all", "common_ratio"),
    ):
        yield Scheme(title, {"control": control}, longest)


def minilm() -> Pieces:
    """What an upload of the MiniLM case is made of: 8 pieces, each a component of 4 matrices."""
    parts = (384, 384)
    shapes: dict[str, tuple[int, ...]] = {f"{SLICES}{m}": (RANK, *parts) for m in range(4)}
    fixed = empty_bits({**shapes, "scores": (RANK,)}, 32, {})
    return Pieces(fixed, np.full(RANK, 4.0 * slice_bits(parts, 32)), least=1)


def alone(cell: Cell, pieces: Pieces, compute_s: float, rounds: int) -> Floats:
    """Return what the smallest upload takes with the whole band, in seconds, [clients].

    The mean over rounds that are not in outage: what no division of the band can fall below.
    """
    config = cell.config
    snr_hz = np.array([cell.links(round + 1).snr_hz for round in range(rounds)])
    seconds = compute_s + pieces.smallest / rate_bps(config.bandwidth_hz, snr_hz, config.rate)
    return np.asarray(np.nanmean(np.where(in_outage(snr_hz, config.rate), np.nan, seconds), axis=0))


def live(
    cell: Cell,
    pieces: Pieces,
    config: LatencyConfig,
    scores: Floats,
    rounds: int,
    compute_s: float,
    asked: Ints | None = None,
) -> Life:
    """Follow a scheduler; clients weigh alike and are, unless said, all asked in every round."""
    clients = len(cell.mean_gain)
    asked = np.arange(clients) if asked is None else asked
    weights = np.full(clients, 1.0 / clients)
    scheduler = LatencyScheduler(config, cell.config, pieces, weights, len(asked))
    told, state = torch.from_numpy(scores).float(), scheduler.start()
    seconds, error = np.full((2, rounds, clients), np.nan)
    queue = np.zeros(rounds)
    sizes = pieces.fixed_bits + pieces.bits.cumsum()
    for round in range(rounds):
        links = cell.links(round + 1)
        plan = scheduler.plan(state, links, asked, np.full(len(asked), compute_s))
        uploads = []
        for client, grant in plan.grants.items():
            # A control may grant a part of a piece, which is of no use.
            count = int((sizes <= grant.bits * (1 + 1e-12)).sum())
            seconds[round, client] = compute_s + sizes[count - 1] / grant.rate_bps
            error[round, client] = 1.0 - np.sort(scores)[::-1][:count].sum()
            uploads.append(Upload(client, seconds[round, client], grant.rate_bps, told))
        state = scheduler.after(state, uploads)
        watched = state["round_queue"] if config.control == "round" else state["queue"].max()
        queue[round] = float(watched)
    return Life(seconds, error, queue)


def figures(life: Life, rounds: int, budget_s: float) -> dict[str, float]:
    """Return what the first ``rounds`` show; latencies and queues in budgets.

    ``error`` is the mean over all who were asked, in which who sends nothing drops everything, and
    ``error_sent`` that over who sent. ``worst`` is the largest mean latency of a client over the
    rounds in which it sent, ``slowest`` the mean over rounds of the last to arrive.
    """
    seconds, error = life.seconds[:rounds], life.error[:rounds]
    sent = ~np.isnan(seconds)
    ever, someone = sent.any(0), sent.any(1)
    return {
        "error": float(np.where(sent, error, 1.0).mean()),
        "error_sent": float(error[sent].mean()),
        "worst": float(np.nanmean(seconds[:, ever], axis=0).max() / budget_s),
        "mean": float(seconds[sent].mean() / budget_s),
        "slowest": float(np.nanmax(seconds[someone], axis=1).mean() / budget_s),
        "queue_end": float(life.queue[rounds - 1] / budget_s),
        "queue_max": float(life.queue[:rounds].max() / budget_s),
        "skipped": float(1.0 - sent.mean()),
        "never": int((~ever).sum()),
    }


def measured(longest: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell, profile of scores, scheme and horizon: figures by seed."""
    pieces = minilm()
    for name, (values, budget_s) in CELLS.items():
        for profile, scores in SCORES.items():
            for scheme in schemes(longest):
                started = time.perf_counter()
                config = LatencyConfig(latency_s=budget_s, **scheme.options)
                lives = []
                for seed in SEEDS:
                    cell, asked = Cell(CellConfig(**values), CLIENTS, seed), None
                    if scheme.sifted:
                        needed = alone(cell, pieces, COMPUTE_S, scheme.rounds)
                        asked = np.flatnonzero(needed <= budget_s)
                    lives.append(
                        live(cell, pieces, config, scores, scheme.rounds, COMPUTE_S, asked)
                    )
                for horizon in (each for each in HORIZONS if each <= scheme.rounds):
                    by_seed = [figures(life, horizon, budget_s) for life in lives]
                    yield {
                        "cell": name,
                        "scores": profile,
                        "scheme": scheme.title,
                        "v": scheme.v,
                        "rounds": horizon,
                        **{k: [round(each[k], 5) for each in by_seed] for k in by_seed[0]},
                    }
                print(f"{name} {profile} {scheme.title} V = {scheme.v}: "
                      f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip


def write(results: dict[str, Any]) -> None:
    """Write channel.json with a line for each row."""
    rows = ",\n  ".join(json.dumps(row) for row in results["rows"])
    text = json.dumps({**results, "rows": []}, indent=1)
    text = text.replace('"rows": []', f'"rows": [\n  {rows}\n ]')
    (HERE / "channel.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=max(HORIZONS), help="the longest horizon")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pieces, rows = minilm(), list(measured(arguments.rounds))
    results = {
        "claims": channel_page.claims(rows, COMMAND),
        "command": COMMAND,
        "machine": runs.machine(),
        "versions": runs.versions(),
        "seeds": list(SEEDS),
        "setting": {
            "clients": CLIENTS,
            "compute_s": COMPUTE_S,
            "whole_bits": int(pieces.whole),
            "smallest_bits": int(pieces.smallest),
            "cells": {n: {**cell, "budget_s": budget} for n, (cell, budget) in CELLS.items()},
            "alone": {
                name: [
                    [round(each / budget, 3) for each in alone(
                        Cell(CellConfig(**cell), CLIENTS, seed), pieces, COMPUTE_S,
                        arguments.rounds,
                    )]
                    for seed in SEEDS
                ]
                for name, (cell, budget) in CELLS.items()
            },
            "scores": {name: [round(s, 5) for s in scores] for name, scores in SCORES.items()},
        },
        "rows": rows,
    }  # fmt: skip
    write(results)
    print(channel_page.tables(results))


if __name__ == "__main__":
    main()
