"""From curves to claims: what each target cost, and what of the paper's promise holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

Kept = dict[str, Any]
Rows = dict[str, dict[int, Kept]]  # row -> seed -> what is kept of a run

ALL_LOGITS = ("all logits, mean", "all logits, prob", "all logits, mag")
ADALD, CODED, ZERO = "AdaLD (mag)", "adald_coded", "adaptive k, zero padding"
TOP_K = (ZERO, "adaptive k, mask", "adaptive k, count", "adaptive k, prob + residual",
         "k = 10, mag, outage")  # fmt: skip
ABSOLUTE = 0.75


def final(kept: Kept) -> float:
    """Mean accuracy of the last three rounds: one round alone is too noisy."""
    return statistics.fmean(kept["accuracy"][-3:])


def bits_to(kept: Kept, target: float, downlink: bool = False) -> float | None:
    """Bits sent up (and down) by the end of the first round that reached ``target``."""
    for round, accuracy in enumerate(kept["accuracy"]):
        if accuracy is not None and accuracy >= target:
            bits = kept["total_uplink_bits"][round]
            return bits + (kept["total_downlink_bits"][round] if downlink else 0.0)
    return None


def targets(rows: Rows, seed: int) -> dict[str, float]:
    """95 % of the best that any all-logits variant reached with this seed; an absolute one."""
    best = max(max(rows[row][seed]["accuracy"]) for row in ALL_LOGITS if seed in rows.get(row, {}))
    return {"95 % of all logits' best": 0.95 * best, f"{ABSOLUTE:.0%}": ABSOLUTE}


def seeds_of(rows: Rows, *wanted: str) -> list[int]:
    """Seeds that all of these rows have."""
    return sorted(set.intersection(*(set(rows.get(row, {})) for row in wanted)))


def ratios(
    rows: Rows, upper: str, lower: Sequence[str], title: str, downlink: bool = False
) -> list[float | None]:
    """Bits to a target of one row over the least of others, per seed; None: it was not reached."""
    found: list[float | None] = []
    for seed in seeds_of(rows, upper, "all logits, prob"):
        target = targets(rows, seed)[title]
        own = bits_to(rows[upper][seed], target, downlink)
        others = [bits_to(rows[row][seed], target, downlink) for row in lower
                  if seed in rows.get(row, {})]  # fmt: skip
        least = min((other for other in others if other is not None), default=None)
        if least is not None:
            found.append(None if own is None else own / least)
    return found


def differences(rows: Rows, one: str, other: str) -> list[float]:
    """Final accuracies of one row less another's, seed by seed."""
    return [final(rows[one][s]) - final(rows[other][s]) for s in seeds_of(rows, one, other)]


def claims(groups: dict[str, Rows], command: str) -> list[dict[str, Any]]:
    """What the benchmark set out to show, as measured."""
    found: list[dict[str, Any]] = []

    def claim(id: str, what: str, target: str, values: Sequence[float | None], holds: bool) -> None:
        known = [round(value, 4) for value in values if value is not None]
        found.append(
            {
                "id": id, "what": what, "target": target,
                "median": statistics.median(known) if known else None,
                "values": [None if v is None else round(v, 4) for v in values],
                "holds": holds, "command": command,
            }
        )  # fmt: skip

    for group, rows in groups.items():
        if group not in ("encoder", "one-token") or not seeds_of(rows, ADALD, "all logits, prob"):
            continue
        first = seeds_of(rows, ADALD, "all logits, prob")[0]
        for title in targets(rows, first):
            _ratio_claims(group, rows, title, claim)
        _accuracy_claims(group, rows, claim)
        for row in (ADALD, CODED, "k = 10, mag, outage"):
            fit = [_fitting(kept) for kept in rows.get(row, {}).values()]
            if fit:
                adaptive = row != "k = 10, mag, outage"
                claim("5", f"{group}: share of uploads that fit, {row}",
                      "1" if adaptive else "as measured", fit,
                      not adaptive or min(fit) == 1.0)  # fmt: skip
        over = [kept["over_model"][1] for kept in rows.get(CODED, {}).values()]
        claim("4", f"{group}: coded message, container and header included / its model's entropy,"
              " worst", "<= 1.05 without them", over, True)  # fmt: skip
    for group in ("tinystories", "shakespeare"):
        if group in groups:
            rows = groups[group]
            for row in (ADALD, CODED):
                shares = [_share(kept) for kept in rows.get(row, {}).values()]
                if shares:
                    claim("8", f"{group}: largest share of a dense message's bits, {row}",
                          "< 0.01", shares, max(shares) < 0.01)  # fmt: skip
    return found


Claim = Callable[[str, str, str, Sequence[float | None], bool], None]


def _median_at_most(values: Sequence[float | None], bound: float) -> bool:
    """Not reached counts as infinite."""
    filled = [float("inf") if value is None else value for value in values]
    return bool(filled) and statistics.median(filled) <= bound


def _ratio_claims(group: str, rows: Rows, title: str, claim: Claim) -> None:
    values = ratios(rows, ADALD, ALL_LOGITS, title)
    what = f"{group}: bits to {title}, AdaLD / best all-logits variant"
    claim("1", what, "<= 0.35", values, _median_at_most(values, 0.35))
    values = ratios(rows, ZERO, ALL_LOGITS, title)
    what = f"{group}: bits to {title}, centred zero padding / best all-logits variant"
    claim("2", what, "not reached, or > 1", values, all(v is None or v > 1 for v in values))
    values = ratios(rows, CODED, (ADALD,), title)
    what = f"{group}: bits to {title}, adald_coded / AdaLD"
    claim("4", what, "<= 0.35 (aim 0.25)", values, _median_at_most(values, 0.35))
    values = ratios(rows, ADALD, ALL_LOGITS, title, downlink=True)
    what = f"{group}: bits up and down to {title}, AdaLD / best all-logits variant"
    claim("9", what, "as measured", values, True)
    values = ratios(rows, CODED, (ADALD,), title, downlink=True)
    what = f"{group}: bits up and down to {title}, adald_coded / AdaLD"
    claim("9", what, "as measured", values, True)


def _accuracy_claims(group: str, rows: Rows, claim: Claim) -> None:
    for row in TOP_K:
        values = differences(rows, ADALD, row)
        if values:
            claim("3", f"{group}: final accuracy, AdaLD - {row}", ">= 0", values,
                  statistics.fmean(values) >= 0)  # fmt: skip
    values = differences(rows, ADALD, "all logits, mean")
    claim("3", f"{group}: final accuracy, AdaLD - all logits, mean", ">= -0.02", values,
          bool(values) and statistics.fmean(values) >= -0.02)  # fmt: skip
    values = differences(rows, CODED, ADALD)
    claim("4", f"{group}: final accuracy, adald_coded - AdaLD", ">= -0.01", values,
          bool(values) and statistics.fmean(values) >= -0.01)  # fmt: skip


def _fitting(kept: Kept) -> float:
    """Share of the uploads asked for that were delivered."""
    statuses = kept["statuses"]
    return statuses.get("delivered", 0) / sum(statuses.values())


def _share(kept: Kept) -> float:
    """Bits of the mean message over those of all logits at 16 bits each."""
    messages = sum(kept["statuses"].values())
    dense = kept["payload_bits"] * 16 / kept["value_bits"]
    return kept["total_uplink_bits"][-1] / messages / dense
