"""What is kept of a run: small enough to be committed, enough for every claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def collected(folder: Path) -> dict[str, Any]:
    """What is kept of a run: its curves, its totals, latencies, and what was dropped."""
    import airtune

    run = airtune.load(folder)
    history, uploads = run.history, run.uploads
    measured = history[history["accuracy"].notna()]
    sent = uploads[uploads["bits"] > 0].copy()
    sent["latency"] = sent["compute_seconds"] + sent["seconds"]
    kept: dict[str, Any] = {
        "round": [int(each) for each in measured["round"]],
        "accuracy": [round(float(each), 4) for each in measured["accuracy"]],
        "total_uplink_bits": [int(each) for each in measured["total_uplink_bits"]],
        "total_seconds": [round(float(each), 3) for each in measured["total_seconds"]],
        "uplink_bits": int(run.summary["uplink_bits"]),
        "worst_latency": round(float(sent.groupby("client")["latency"].mean().max()), 4),
        "round_latency": round(float(sent.groupby("round")["latency"].max().mean()), 4),
        "statuses": {k: int(v) for k, v in uploads["status"].value_counts().items()},
        "wall_seconds": round(float(run.summary["wall_seconds"]), 1),
    }
    if history["perplexity"].notna().any():
        kept["perplexity"] = [round(float(each), 3) for each in history["perplexity"].dropna()]
    if "gradient_norm" in history:
        norms = history["gradient_norm"].dropna()
        kept["gradient_norm"] = [round(float(each), 4) for each in norms]
    for name in ("kept", "drop_error"):
        if name in sent:
            kept[name] = round(float(sent[name].astype(float).mean()), 4)
    for name in ("covariance", "covariance_of_change"):
        if name in history:
            kept[name] = [None if v != v else round(float(v), 4) for v in history[name]]
    return kept
