"""From personal accuracies to claims: paired by client and seed, with standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.claims import Claim, Claims
from benchmarks.pwff import cases as of

Kept = dict[str, Any]
Key = tuple[str, str, str]  # row, head, skew
Rows = Mapping[Key, Mapping[int, Kept]]  # -> seed -> what is kept of a run


def paired(rows: Rows, own: Key, other: Key) -> list[float]:
    """Differences in personal accuracy, of every client of every seed that both rows have."""
    found = []
    for seed in sorted(set(rows.get(own, {})) & set(rows.get(other, {}))):
        mine, theirs = (rows[key][seed]["personal"] for key in (own, other))
        found += [mine[client] - theirs[client] for client in sorted(mine)]
    return found


def seed_means(rows: Rows, own: Key, other: Key) -> list[float]:
    """Mean differences by seed: clients of a seed share a model, so they are not independent."""
    found = []
    for seed in sorted(set(rows.get(own, {})) & set(rows.get(other, {}))):
        mine, theirs = (rows[key][seed]["personal"] for key in (own, other))
        found.append(statistics.fmean(mine[client] - theirs[client] for client in mine))
    return found


def standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean; infinite for fewer than two values."""
    if len(values) < 2:
        return math.inf
    return statistics.stdev(values) / math.sqrt(len(values))


def mean(rows: Rows, key: Key, figure: str) -> float:
    """Mean over seeds of a figure of a row."""
    return statistics.fmean(each[figure] for each in rows[key].values())


def claims(rows: Rows, command: str) -> list[Claim]:
    """Return the claims that these rows decide."""
    found = Claims(command)
    add = found.add
    for head, titles in of.HEADS.items():
        for skew in of.SKEWS:
            own = ("PFTT", head, skew)
            for other in titles[1:]:
                values = paired(rows, own, (other, head, skew))
                if not values:
                    continue
                gain, error = statistics.fmean(values), standard_error(values)
                by_seed = seed_means(rows, own, (other, head, skew))
                over_seeds = standard_error(by_seed)
                spread = f"{over_seeds:.4f} over seeds" if len(by_seed) > 1 else "one seed"
                asked = (
                    head == "frozen"
                    and skew != "IID"
                    and other in ("adapter shared", "LoRA shared")
                )
                add(f"1-{head}-{skew}-{other}",
                    f"{head} head, {skew}: PFTT less {other}, personal accuracy (standard error "
                    f"{error:.4f} over clients and seeds, {spread})",
                    "above two of the larger" if asked else "as measured", [gain],
                    gain > 2 * max(error, over_seeds) if asked else None)  # fmt: skip
    own, both = ("PFTT", "frozen", "0.5"), ("both shared", "frozen", "0.5")
    if own in rows:
        part = mean(rows, own, "upload_bits") / mean(rows, own, "model_bits")
        add("2-full", "upload of PFTT / the whole model, frozen head", "<= 0.01", [part],
            part <= 0.01)  # fmt: skip
    if own in rows and both in rows:
        part = mean(rows, own, "upload_bits") / mean(rows, both, "upload_bits")
        add(f"2-both-{of.WIDTH}", f"upload of PFTT (m = {of.WIDTH}) / everything shared, frozen "
            "head", "as measured", [part], None)  # fmt: skip
    own, lora = ("PFTT, width 8", "frozen", "0.5"), ("LoRA shared", "frozen", "0.5")
    if own in rows and lora in rows:
        bits = mean(rows, own, "upload_bits")
        part = bits / (bits + mean(rows, lora, "upload_bits"))
        add("2-both", f"upload of PFTT (m = {of.NARROW}) / that and its LoRA's, frozen head",
            "<= 0.55", [part], part <= 0.55)  # fmt: skip
    for skew in of.SKEWS:
        own, both = ("PFTT", "frozen", skew), ("both shared", "frozen", skew)
        if own in rows and both in rows:
            lost = mean(rows, own, "personal_global") - mean(rows, both, "personal_global")
            add(f"3-{skew}", f"frozen head, {skew}: accuracy of PFTT's personal models on all "
                "texts, less that of everything shared", "as measured", [lost], None)  # fmt: skip
        _of_plus(rows, skew, found)
    return found.found


def _of_plus(rows: Rows, skew: str, found: Claims) -> None:
    """PFTT+ against the best personal scheme, and against the one model that all share."""
    own, both = ("PFTT+", "frozen", skew), ("both shared", "frozen", skew)
    others: list[Key] = [
        ("PFTT", "frozen", skew), ("adapter shared", "private", skew), ("local", "frozen", skew)
    ]  # fmt: skip
    others = [key for key in others if paired(rows, own, key)]
    if others:
        best = max(others, key=lambda key: mean(rows, key, "personal_accuracy"))
        values = paired(rows, own, best)
        gain, error = statistics.fmean(values), standard_error(values)
        what = (
            f"frozen head, {skew}: PFTT+ less the best of {len(others)} personal schemes, "
            f"{best[0]} with a {best[1]} head, personal accuracy (standard error {error:.4f})"
        )
        target = ">= - one standard error"
        found.add(f"3-{skew}-plus-personal", what, target, [gain], gain >= -error)
    if own in rows and both in rows:
        # All clients' own models are the server's there, and are tried on the same texts.
        lost = mean(rows, own, "personal_global") - mean(rows, both, "personal_global")
        what = (
            f"frozen head, {skew}: PFTT+'s personal models less the one of everything shared, "
            "accuracy on texts of all classes"
        )
        found.add(f"3-{skew}-plus-global", what, ">= -0.02", [lost], lost >= -0.02 - 1e-9)
