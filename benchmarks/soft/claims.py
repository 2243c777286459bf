"""From curves to claims: paired by seed, with standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

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


def of_ideal(rows: Rows, row: str, best_row: str = of.IDEAL_ROW) -> dict[str, list[float]]:
    """Accuracy, gain over the start, and bits, each by seed and relative to the ideal system."""
    ideal = rows.get(best_row, {})
    seeds = sorted(set(rows.get(row, {})) & set(ideal))
    found: dict[str, list[float]] = {"accuracy": [], "gain": [], "bits": []}
    for seed in seeds:
        own, best = rows[row][seed], ideal[seed]
        found["accuracy"].append(final(own) / final(best))
        found["gain"].append((final(own) - start(own)) / (final(best) - start(best)))
        found["bits"].append(own["uplink_bits"] / best["uplink_bits"])
    return found


def to_target(kept: Kept, target: float, cost: str) -> float:
    """Return what was spent of ``cost`` until ``target`` accuracy, between evaluations linearly.

    Infinite if it is never reached.
    """
    points = list(zip(kept["accuracy"], kept[cost], strict=True))
    for (before, spent), (now, more) in pairwise(points):
        if now >= target:
            part = (target - before) / (now - before) if now > before else 1.0
            return float(spent + max(part, 0.0) * (more - spent))
    return math.inf


def at_seconds(kept: Kept, seconds: float) -> float:
    """Return the accuracy after so many simulated seconds, between evaluations linearly."""
    return float(np.interp(seconds, kept["total_seconds"], kept["accuracy"]))


def against(rows: Rows, own: str, other: str, part: float, whose: str, cost: str) -> list[float]:
    """Return, by seed, ``own``'s cost by ``other``'s to ``part`` of ``whose`` final accuracy.

    Only of seeds in which both reach it.
    """
    found = []
    for seed in sorted(
        set(rows.get(own, {})) & set(rows.get(other, {})) & set(rows.get(whose, {}))
    ):
        target = part * final(rows[whose][seed])
        spent, reference = (to_target(rows[row][seed], target, cost) for row in (own, other))
        found.append(spent / reference if math.isfinite(reference) else math.nan)
    return [each for each in found if not math.isnan(each)]


def standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    return statistics.stdev(values) / math.sqrt(len(values))


def claim(
    name: str, what: str, target: str, values: Sequence[float], holds: bool | None, command: str
) -> dict[str, Any]:
    """Return a claim as results hold it; ``holds`` is None where nothing is asked.

    A value that is not finite, a target that was never reached, is None.
    """
    return {
        "id": name,
        "what": what,
        "target": target,
        "measured": [round(value, 4) if math.isfinite(value) else None for value in values],
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

    def ratios(name: str, row: str, ideal: str, limits: tuple[float, float, float]) -> None:
        values = of_ideal(rows, row, ideal)
        for key, limit, sign in zip(values, limits, (">=", ">=", "<="), strict=True):
            mean = statistics.fmean(values[key]) if values[key] else math.nan
            holds = mean >= limit if sign == ">=" else mean <= limit
            add(f"{name}-{key}", f"{row} / {ideal}: {key}", f"{sign} {limit} on average",
                values[key], holds)  # fmt: skip

    ratios("1", of.SCHEDULED, of.IDEAL_ROW, (0.98, 0.9, 0.5))
    ratios("1-4-bits", of.FOUR_BITS, of.IDEAL_ROW, (0.98, 0.9, 0.5))
    ten, ten_soft, ten_coded = (row for row, *_ in of.EASY)
    ratios("1-ten", ten_soft, ten, (0.98, 0.9, 0.5))
    difference("2-small-rank", of.SMALL, 0.0)
    difference("2-svd", of.SVD, -0.005)
    difference("2-top-k-changes", of.TOP_K, None)
    difference("2-top-k-values", of.NAIVE, None)
    difference("2-random", of.RANDOM, None)
    for name, other in (("limit", of.LIMITED), ("client-ratio", of.OWN_RATIO), ("round", of.ROUND)):
        values = paired(rows, of.SCHEDULED, other)
        add(f"5-{name}", f"{of.SCHEDULED} less {other}, final accuracy", "as measured", values,
            None)  # fmt: skip
    for row, budget in of.BUDGETS.items():
        kept = [each for _, each in sorted(rows.get(row, {}).items())]
        worst, slowest = (
            [each[key] for each in kept] for key in ("worst_latency", "round_latency")
        )
        bound = budget * (1.0 + 1.0 / math.sqrt(of.ROUNDS))
        add(f"5-worst-{row}", f"{row}: worst client's mean latency, s (budget {budget:g})",
            f"<= {bound:.3f}, the budget times 1 + 1 / sqrt(T)", worst,
            bool(worst) and max(worst) <= bound)  # fmt: skip
        add(f"5-slowest-{row}", f"{row}: mean of the rounds' slowest, s (budget {budget:g})",
            "as measured", slowest, None)  # fmt: skip
    for row in (of.EQUAL, of.MIN_MAX):
        both = sorted(set(rows.get(row, {})) & set(rows.get(of.SCHEDULED, {})))
        values = [
            at_seconds(rows[row][seed], rows[of.SCHEDULED][seed]["total_seconds"][-1])
            - final(rows[of.SCHEDULED][seed])
            for seed in both
        ]
        add(f"5-{row}", f"{row}, after the seconds of {of.SCHEDULED}, less its final accuracy",
            "as measured", values, None)  # fmt: skip
    for row, *_ in of.COVARIANCE:
        for kept in rows.get(row, {}).values():
            for name in ("covariance", "covariance_of_change"):
                last = [each for each in kept[name] if each is not None][-5:]
                add(f"7-{name}-{row}", f"{name} of the last five rounds, {row}", "as measured",
                    [statistics.fmean(last)], None)  # fmt: skip
    for row in ("dense, A frozen (FFA-LoRA)", "dense, residual in the frozen weights (FedEx-LoRA)"):
        values = paired(rows, row, of.IDEAL_ROW)
        add(f"7-{row}", f"{row} less ideal, final accuracy", "as measured", values, None)
    for row in (of.CODED, of.FEWER):
        ratios(f"8-{row}", row, of.IDEAL_ROW, (0.98, 0.9, 0.15))
        values = against(rows, row, of.IDEAL_ROW, 0.98, of.IDEAL_ROW, "total_uplink_bits")
        add(f"8-bits-to-target-{row}", f"{row} / ideal: bits to 98 % of ideal's final accuracy",
            "<= 0.15 (aim 0.1)", values, bool(values) and max(values) <= 0.15)  # fmt: skip
    ratios("8-ten", ten_coded, ten, (0.98, 0.9, 0.15))
    for row in (of.CODED_LIMITED, of.CODED_SCHEDULED):
        values = against(rows, row, of.LIMITED, 0.98, of.LIMITED, "total_seconds")
        add(f"8-seconds-{row}", f"{row} / {of.LIMITED}: seconds to 98 % of the latter's final "
            "accuracy", "< 1", values, bool(values) and max(values) < 1.0)  # fmt: skip
    return found
