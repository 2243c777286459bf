from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airtune.report.view import RunView

EXPERIMENT = "name: demo\nmethod: {name: fedavg}\ntrain: {rounds: 30}\n"


def synthetic(
    name: str = "demo",
    *,
    rounds: int = 30,
    clients: int = 10,
    per_round: int | None = None,
    evaluate_every: int = 1,
    ideal: bool = False,
    limited: bool = False,
    causal: bool = False,
    personal: bool = True,
    payload_bits: float = 2.4e6,
    speed: float = 0.15,
    best: float = 0.82,
    seed: int = 0,
) -> RunView:
    """A run as the ledger would give it: null, not NaN, where JSON has no number."""
    rng = np.random.default_rng(seed)
    uploads: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    mean_snr = rng.uniform(-2, 22, clients)
    for r in range(rounds + 1):
        asked = sorted(rng.choice(clients, per_round or clients, replace=False)) if r else []
        mine = [_upload(rng, r, int(c), mean_snr, payload_bits, ideal, limited) for c in asked]
        uploads += mine
        arrived = [row for row in mine if row["status"] == "delivered"]
        measured = r % evaluate_every == 0 or r == rounds
        accuracy = best - (best - 0.04) * math.exp(-speed * r) + rng.normal(0, 0.006)
        rows.append(
            {
                "round": r,
                "accuracy": accuracy if measured else math.nan,
                "loss": 3 * math.exp(-speed * r) + 0.6 if measured else math.nan,
                "personal_accuracy": accuracy + 0.07 * (1 - math.exp(-r))
                if measured and personal
                else math.nan,
                "train_loss": 3 * math.exp(-speed * r) if r else math.nan,
                "delivered": len(arrived),
                "asked": len(mine),
                "uplink_bits": sum(row["bits"] for row in mine),
                "downlink_bits": payload_bits if r else 0,
                "seconds": max((x["compute_seconds"] + x["seconds"] for x in mine), default=0.0),
                "joules": sum(x["compute_joules"] + x["joules"] for x in mine),
            }
        )
        if causal:
            rows[-1]["perplexity"] = 60 * math.exp(-speed * r) + 9 if measured else math.nan
    history = pd.DataFrame(rows)
    for column in ("uplink_bits", "downlink_bits", "seconds", "joules"):
        history[f"total_{column}"] = history[column].cumsum()
    last = history.iloc[-1]
    summary = {
        "name": name, "method": "fedavg", "model": "all-MiniLM-L6-v2",
        "task": "causal" if causal else "classification", "rounds": rounds, "clients": clients,
        "accuracy": last["accuracy"], "best_accuracy": history["accuracy"].max(),
        "personal_accuracy": last["personal_accuracy"] if personal else None,
        "loss": last["loss"], "perplexity": last["perplexity"] if causal else None,
        "uplink_bits": last["total_uplink_bits"], "downlink_bits": last["total_downlink_bits"],
        "seconds": last["total_seconds"], "joules": last["total_joules"], "wall_seconds": 412.0,
        "trained_parameters": 147_456, "payload_bits": payload_bits,
        "delivered": int(history["delivered"].sum()), "asked": int(history["asked"].sum()),
    }  # fmt: skip
    return RunView(name, history, pd.DataFrame(uploads), summary, EXPERIMENT)


def _upload(
    rng: np.random.Generator,
    r: int,
    client: int,
    mean_snr: np.ndarray,
    payload_bits: float,
    ideal: bool,
    limited: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "round": r, "client": client, "status": "delivered", "reason": None,
        "bits": payload_bits, "granted_bits": None, "bandwidth_hz": None, "rate_bps": None,
        "power_w": 0.2, "snr_db": None, "compute_seconds": 0.4, "compute_joules": 1.5,
        "seconds": 0.0, "joules": 0.0, "transmissions": 1, "loss": 1.0,
    }  # fmt: skip
    if ideal:
        return row
    snr = mean_snr[client] + rng.normal(0, 3)
    band = 1e6 * rng.uniform(0.5, 1.5)
    rate = band * math.log2(1 + 10 ** (snr / 10))
    row |= {"snr_db": snr, "bandwidth_hz": band, "rate_bps": rate}
    row |= {"seconds": payload_bits / rate, "joules": 0.2 * payload_bits / rate}
    if limited:
        row["granted_bits"] = payload_bits * rng.uniform(0.8, 2)
    draw = rng.uniform()
    if snr < -1:
        row |= {"status": "outage", "reason": "no rate clears the outage target"}
    elif snr < 1:
        row |= {"status": "skipped", "reason": "its payload needs 9 s", "bits": 0, "snr_db": None}
        row |= {"bandwidth_hz": 0.0, "seconds": 0.0, "joules": 0.0, "compute_seconds": 0.0}
    elif draw < 0.03:
        row |= {"status": "late", "reason": "not there 2 s after the broadcast"}
    elif draw < 0.05:
        row["status"] = "lost"
    elif draw < 0.06:
        row |= {"status": "missed", "reason": "did not hear the broadcast", "bits": 0}
    return row


@pytest.fixture
def make_view() -> Callable[..., RunView]:
    return synthetic
