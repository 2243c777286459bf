"""From curves to claims: paired by seed, with standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.soft import cases as of

Kept = dict[str, Any]
Rows = dict[str, dict[int, Kept]]  # row -> seed -> what is kept of a run


def final(kept: Kept) -> float:
    """Mean accuracy of the last two evaluations."""
    return statistics.fmean(kept["accuracy"][-2:])


def start(kept: Kept) -> float:
    """Accuracy before any training."""
    return float(kept["accuracy"][0])


def paired(rows: Rows, own: str, other: str) -> list[float]:
    """Differences in final accuracy, by seed."""
    seeds = sorted(set(rows.get(own, {})) & set(rows.get(other, {})))
    return [final(rows[own][seed]) - final(rows[other][seed]) for seed in seeds]


def of_ideal(rows: Rows, row: str) -> dict[str, list[float]]:
    """Accuracy, gain over the start, and bits, each by seed and relative to the ideal system."""
    ideal = rows.get(of.IDEAL_ROW, {})
    seeds = sorted(set(rows.get(row, {})) & set(ideal))
    found: dict[str, list[float]] = {"accuracy": [], "gain": [], "bits": []}
    for seed in seeds:
        own, best = rows[row][seed], ideal[seed]
        found["accuracy"].append(final(own) / final(best))
        found["gain"].append((final(own) - start(own)) / (final(best) - start(best)))
        found["bits"].append(own["uplink_bits"] / best["uplink_bits"])
    return found


def standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    return statistics.stdev(values) / math.sqrt(len(values))


def claim(
    name: str, what: str, target: str, values: Sequence[float], holds: bool | None, command: str
) -> dict[str, Any]:
    """Return a claim as results hold it; ``holds`` is None where nothing is asked."""
    return {
        "id": name,
        "what": what,
        "target": target,
        "measured": [round(value, 4) for value in values],
        "holds": holds,
        "command": command,
    }


def claims(rows: Rows, command: str) -> list[dict[str, Any]]:
    """Return the issue's claims that these rows decide."""
    found: list[dict[str, Any]] = []

    def add(name: str, what: str, target: str, values: Sequence[float], holds: bool | None) -> None:
        if values:
            found.append(claim(name, what, target, values, holds, command))

    def difference(name: str, other: str, least: float | None) -> None:
        values = paired(rows, of.SOFT, other)
        error = standard_error(values)
        text = f"{of.SOFT} less {other}, final accuracy"
        if values and math.isfinite(error):
            text += f" (mean {statistics.fmean(values):+.4f}, standard error {error:.4f})"
        target = "as measured" if least is None else f">= {least:g} on average"
        holds = None if least is None or not values else statistics.fmean(values) >= least - 1e-9
        add(name, text, target, values, holds)

    scheduled = of_ideal(rows, of.SCHEDULED)
    for key, target, least in (("accuracy", 0.98, True), ("gain", 0.9, True), ("bits", 0.5, False)):
        values = scheduled[key]
        mean = statistics.fmean(values) if values else math.nan
        holds = mean >= target if least else mean <= target
        sign = ">=" if least else "<="
        add(f"1-{key}", f"{of.SCHEDULED} / ideal: {key}", f"{sign} {target} on average", values,
            holds)  # fmt: skip
    difference("2-small-rank", of.SMALL, 0.0)
    difference("2-svd", of.SVD, -0.005)
    difference("2-top-k-changes", of.TOP_K, None)
    difference("2-top-k-values", of.NAIVE, None)
    difference("2-random", of.RANDOM, None)
    for name, other in (("limit", of.LIMITED), ("client-ratio", of.OWN_RATIO), ("round", of.ROUND)):
        values = paired(rows, of.SCHEDULED, other)
        add(f"5-{name}", f"{of.SCHEDULED} less {other}, final accuracy", "as measured", values,
            None)  # fmt: skip
    for row in (of.SCHEDULED, of.LIMITED, of.OWN_RATIO, of.ROUND):
        for key, words in (("worst_latency", "worst client's mean latency"),
                           ("round_latency", "mean of the rounds' slowest")):  # fmt: skip
            values = [kept[key] for _, kept in sorted(rows.get(row, {}).items())]
            add(f"5-{key}-{row}", f"{row}: {words}, s (budget 0.35)", "as measured", values, None)
    return found
