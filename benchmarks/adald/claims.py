"""From curves to claims: what each target cost, and what of the paper's promise holds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

Kept = dict[str, Any]
Rows = dict[str, dict[int, Kept]]  # row -> seed -> what is kept of a run

ALL_LOGITS = ("all logits, mean", "all logits, prob", "all logits, mag")
ADALD, CODED, ZERO = "AdaLD (mag)", "adald_coded", "adaptive k, zero padding"
OUTAGE = "k = 10, mag, outage"
TOP_K = (ZERO, "adaptive k, mask", "adaptive k, count", "adaptive k, prob + residual", OUTAGE)
ABSOLUTE = 0.75
NEVER = math.inf  # bits to a target that was not reached


def final(kept: Kept) -> float:
    """Mean accuracy of the last three rounds: one round alone is too noisy."""
    return statistics.fmean(kept["accuracy"][-3:])


def bits_to(kept: Kept, target: float, downlink: bool = False) -> float:
    """Bits sent up (and down) by the end of the first round that reached ``target``."""
    for round, accuracy in enumerate(kept["accuracy"]):
        if accuracy is not None and accuracy >= target:
            down = kept["total_downlink_bits"][round] if downlink else 0.0
            return float(kept["total_uplink_bits"][round] + down)
    return NEVER


def targets(rows: Rows, seed: int) -> dict[str, float]:
    """95 % of the best that any all-logits variant reached with this seed; an absolute one."""
    best = [max(rows[row][seed]["accuracy"]) for row in ALL_LOGITS if seed in rows.get(row, {})]
    return {"95 % of all logits' best": 0.95 * max(best), f"{ABSOLUTE:.0%}": ABSOLUTE}


def seeds_of(rows: Rows, *wanted: str) -> list[int]:
    """Seeds that all of these rows have."""
    return sorted(set.intersection(*(set(rows.get(row, {})) for row in wanted)))


def compared(
    rows: Rows, own: str, others: Sequence[str], title: str, downlink: bool = False
) -> dict[int, tuple[float, float]]:
    """Bits to a target of one row, and the least of others, by seed; infinite: not reached."""
    found = {}
    for seed in seeds_of(rows, own, ALL_LOGITS[1]):
        there = [row for row in others if seed in rows.get(row, {})]
        if there:
            target = targets(rows, seed)[title]
            found[seed] = (
                bits_to(rows[own][seed], target, downlink),
                min(bits_to(rows[row][seed], target, downlink) for row in there),
            )
    return found


def ratio(pair: tuple[float, float]) -> float:
    """One cost over another: NEVER if only the first is, 0 if only the second, NaN if both are."""
    own, other = pair
    if own == other == NEVER:
        return math.nan
    return own / other


def differences(rows: Rows, one: str, other: str) -> dict[int, float]:
    """Final accuracies of one row less another's, by seed."""
    return {s: final(rows[one][s]) - final(rows[other][s]) for s in seeds_of(rows, one, other)}


class Claims:
    """Collects claims; each has one value for every seed that was measured."""

    def __init__(self, command: str) -> None:
        self.found: list[dict[str, Any]] = []
        self._command = command

    def add(
        self,
        id: str,
        what: str,
        target: str,
        measured: dict[int, float],
        holds: Callable[[Sequence[float]], bool] | None,
    ) -> None:
        """Add a claim; without ``holds`` it is a figure. NaN, where nobody arrived, never holds."""
        values = list(measured.values())
        if not values:
            return
        known = not any(math.isnan(value) for value in values)
        self.found.append(
            {
                "id": id,
                "what": what,
                "target": target,
                "measured": [_plain(value) for value in values],
                "seeds": list(measured),
                "holds": None if holds is None else bool(known and holds(values)),
                "command": self._command,
            }
        )


def claims(groups: dict[str, Rows], command: str) -> list[dict[str, Any]]:
    """What the benchmark set out to show, as measured."""
    found = Claims(command)
    for group in ("encoder", "one-token"):
        rows = groups.get(group, {})
        if seeds_of(rows, ADALD, ALL_LOGITS[1]):
            for title in targets(rows, seeds_of(rows, ADALD, ALL_LOGITS[1])[0]):
                _add_costs(found, group, rows, title)
            _add_accuracies(found, group, rows)
            _add_messages(found, group, rows)
    for group in ("tinystories", "shakespeare"):
        for row in (ADALD, CODED):
            runs = groups.get(group, {}).get(row, {})
            shares = {seed: kept["largest_bits"] / kept["dense_bits_16"]
                      for seed, kept in runs.items()}  # fmt: skip
            name = f"8-{group}-{_short(row)}"
            what = f"{group}: largest message of {row} / all token logits at 16 bits"
            found.add(name, what, "< 0.01", shares, lambda values: max(values) < 0.01)
    return found.found


def _add_costs(found: Claims, group: str, rows: Rows, title: str) -> None:
    mark = f"{group}-{'75' if title == f'{ABSOLUTE:.0%}' else '95'}"
    to = f"{group}: bits to {title},"

    def ratios(own: str, others: Sequence[str], downlink: bool = False) -> dict[int, float]:
        pairs = compared(rows, own, others, title, downlink)
        return {seed: ratio(pair) for seed, pair in pairs.items()}

    def at_most(bound: float) -> Callable[[Sequence[float]], bool]:
        return lambda values: statistics.median(values) <= bound

    best = "best all-logits variant"
    found.add(f"1-{mark}", f"{to} AdaLD / {best}", "<= 0.35", ratios(ADALD, ALL_LOGITS),
              at_most(0.35))  # fmt: skip
    zero = ratios(ZERO, ALL_LOGITS)
    # Where neither arrives there is no ratio, but zero padding has not reached the target.
    reached = {s: NEVER if math.isnan(value) else value for s, value in zero.items()}
    found.add(f"2-{mark}", f"{to} centred zero padding / {best}", "not reached, or > 1", reached,
              lambda values: min(values) > 1)  # fmt: skip
    found.add(f"4-{mark}", f"{to} adald_coded / AdaLD", "<= 0.35, aim 0.25",
              ratios(CODED, (ADALD,)), at_most(0.35))  # fmt: skip
    found.add(f"9-{mark}", f"{to} both ways, AdaLD / {best}", "as measured",
              ratios(ADALD, ALL_LOGITS, downlink=True), None)  # fmt: skip
    found.add(f"9-{mark}-coded", f"{to} both ways, adald_coded / AdaLD", "as measured",
              ratios(CODED, (ADALD,), downlink=True), None)  # fmt: skip
    outage = f"{to} AdaLD / k = 10 with the channel ignored"
    found.add(f"1-{mark}-fixed", outage, "as measured",
              ratios(ADALD, ("k = 10, mag, channel ignored",)), None)  # fmt: skip


def _add_accuracies(found: Claims, group: str, rows: Rows) -> None:
    def above(bound: float) -> Callable[[Sequence[float]], bool]:
        return lambda values: statistics.fmean(values) >= bound

    what = f"{group}: final accuracy,"
    for row in TOP_K:
        name = f"3-{group}-{_short(row)}"
        found.add(name, f"{what} AdaLD - {row}", ">= 0", differences(rows, ADALD, row), above(0))
    found.add(f"3-{group}-mean", f"{what} AdaLD - {ALL_LOGITS[0]}", ">= -0.02",
              differences(rows, ADALD, ALL_LOGITS[0]), above(-0.02))  # fmt: skip
    found.add(f"4-{group}", f"{what} adald_coded - AdaLD", ">= -0.01",
              differences(rows, CODED, ADALD), above(-0.01))  # fmt: skip


def _add_messages(found: Claims, group: str, rows: Rows) -> None:
    for row in (ADALD, CODED, OUTAGE):
        fit = {seed: _delivered(kept) for seed, kept in rows.get(row, {}).items()}
        what = f"{group}: share of uploads that fit, {row}"
        if row == OUTAGE:
            found.add(f"5-{group}-outage", what, "as measured", fit, None)
        else:
            name = f"5-{group}-{_short(row)}"
            found.add(name, what, "1", fit, lambda values: min(values) == 1.0)
    over = {seed: kept["over_model"] for seed, kept in rows.get(CODED, {}).items()}
    what = f"{group}: coded bytes (without container and header) / entropy of the model, worst"
    found.add(f"4-{group}-coder", what, "<= 1.05", over, lambda values: max(values) <= 1.05)


def _delivered(kept: Kept) -> float:
    statuses = kept["statuses"]
    return float(statuses.get("delivered", 0) / sum(statuses.values()))


def _short(row: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in row.lower()).strip("-").replace("--", "-")


def _plain(value: float) -> float | str:
    """JSON has no infinity: say it."""
    if math.isnan(value):
        return "neither reached it"
    return "not reached" if value == NEVER else round(value, 4)
