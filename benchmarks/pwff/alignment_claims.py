"""From clients' rewards to claims: differences are paired by seed, errors are those over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.claims import Claim, Claims
from benchmarks.pwff import alignment_cases as of
from benchmarks.pwff.claims import standard_error

Kept = dict[str, Any]
Rows = Mapping[tuple[str, str], Mapping[int, Kept]]  # (row, task) -> seed -> what is kept
OWN = ("PWFF", "PWFF, split weights", "PWFF+")


def gains(rows: Rows, task: str, own: str, other: str) -> list[float]:
    """Return the difference in mean own-weight reward, of each seed that both rows have."""
    mine, theirs = rows.get((own, task), {}), rows.get((other, task), {})
    return [
        statistics.fmean(mine[seed]["reward"]) - statistics.fmean(theirs[seed]["reward"])
        for seed in sorted(set(mine) & set(theirs))
    ]


def regret(kept: Kept) -> float:
    """Return how much clients' rewards lack to the best that their weights allow, in the mean."""
    front, weights = np.array(kept["front"]), np.array(of.PREFERENCES)
    best = (np.outer(weights, front[:, 0]) + np.outer(1 - weights, front[:, 1])).max(1)
    return float((best - np.array(kept["reward"])).mean())


def better_than_singles(rows: Rows, task: str, own: str) -> list[int]:
    """Return, by seed, how many clients have more than under every federation of one weight."""
    found = []
    for seed, kept in rows.get((own, task), {}).items():
        singles = [rows.get((row, task), {}).get(seed) for row in ("equal weights", *of.SINGLE)]
        if all(single is not None for single in singles):
            best = np.max([single["reward"] for single in singles if single], axis=0)
            found.append(int((np.array(kept["reward"]) > best).sum()))
    return found


def changes(own: Mapping[int, Kept], name: str) -> list[float]:
    """Return how far a score moved from the untrained model's, mean over clients, of each seed."""
    return [statistics.fmean(k[name]) - statistics.fmean(k["start"][name]) for k in own.values()]


def claims(rows: Rows, command: str) -> list[Claim]:
    """Return the claims that these rows decide."""
    found = Claims(command)
    add = found.add
    for task in ("caring", "harmless", "learned"):
        for own in OWN:
            for other in ("local", "equal weights"):
                values = gains(rows, task, own, other)
                if values:
                    error = standard_error(values)
                    decided = len(values) > 1
                    spread = f"standard error of the mean {error:.3f}" if decided else "one seed"
                    add(f"4-{task}-{own}-{other}",
                        f"{task}: {own} less {other}, mean own-weight reward, by seed "
                        f"({spread})",
                        "mean above two standard errors" if decided else "as measured", values,
                        statistics.fmean(values) > 2 * error if decided else None)  # fmt: skip
            counts = better_than_singles(rows, task, own)
            if counts:
                add(f"4-{task}-{own}-singles",
                    f"{task}: clients of five whom {own} serves better than every federation of "
                    "one weight, by seed", ">= 3 of 5", counts, min(counts) >= 3)  # fmt: skip
        for row in (*OWN, "local", "equal weights"):
            there = rows.get((row, task), {}).values()
            values = [regret(kept) for kept in there if kept["front"]]
            if values:
                add(f"4-{task}-{row}-front", f"{task}: distance of {row} to the best that each "
                    "client's weights allow, mean, by seed", "as measured", values,
                    None)  # fmt: skip
    for rule in ("PWFF", *of.RULES):
        own = rows.get((rule, "harmless"), {})
        if not own:
            continue
        means, worst, held = [], [], True
        for name in ("helpful", "safe"):
            by_seed = changes(own, name)
            means.append(statistics.fmean(by_seed))
            by_client = [np.subtract(k[name], k["start"][name]) for k in own.values()]
            worst.append(float(np.mean(by_client, axis=0).min()))
            held &= means[-1] >= -standard_error(by_seed)
        decided = len(own) > 1
        add(f"5-{rule}", f"harmless: change of helpful and safe from the untrained model, {rule}, "
            "mean over clients and seeds; and of the client for whom it is least",
            "neither mean below by a standard error over seeds" if decided else "as measured",
            [*means, *worst], held if decided else None)  # fmt: skip
        if rule != "PWFF":
            price = gains(rows, "harmless", rule, "PWFF")
            add(f"5-{rule}-price", f"harmless: {rule} less fixed weights, own-weight reward, by "
                "seed", "as measured", price, None)  # fmt: skip
    for own, other in (
        ("PFIT, copies", "block, equal weights"), ("PFIT, restart", "block, equal weights"),
        ("PFIT, copies, PPO", "PFIT, copies"), ("PWFF+, block", "block, equal weights"),
        ("block, equal weights", "PWFF+"),
    ):  # fmt: skip
        values = gains(rows, "caring", own, other)
        if values:
            seconds = [
                statistics.fmean(kept["wall_seconds"] for kept in rows[row, "caring"].values())
                for row in (own, other)
            ]
            add(f"6-{own}-{other}", f"caring: {own} less {other}, own-weight reward at equal "
                f"steps, by seed ({seconds[0]:.0f} and {seconds[1]:.0f} s a run, with its "
                "evaluation)",
                "as measured", values, None)  # fmt: skip
    for row in ("PWFF", "PWFF+", "equal weights"):
        own = rows.get((row, "learned"), {})
        if own:
            add(f"6-learned-{row}", f"learned rewards, {row}: change of polite and harmless from "
                "the untrained model, mean over clients and seeds", "as measured",
                [statistics.fmean(changes(own, name)) for name in ("helpful", "safe")],
                None)  # fmt: skip
    for kept in list(rows.get(("PWFF", "learned"), {}).values())[:1]:  # heads of every seed are one
        shares = [kept["judges"][name]["share"] for name in ("helpful", "safe")]
        add("6-judges", "share of held-out pairs that the two heads order rightly, learned once by "
            f"the server; sent once in {kept['judges_bits']} bits", "above 0.5", shares,
            min(shares) > 0.5)  # fmt: skip
    pfit = rows.get(("PFIT, restart", "caring"), {})
    if pfit:
        kept = next(iter(pfit.values()))
        part = kept["upload_bits"] / kept["model_bits"]
        add("6-uplink", "upload of PFIT (one of five blocks) / the whole model, stories260k",
            "<= 0.12", [part], part <= 0.12)  # fmt: skip
    return found.found
