"""From the scheduler's runs without training to claims and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks.soft.claims import claim

Row = dict[str, Any]
TSFA, SIFTED = "TSFA", "TSFA, only those who can"  # the schemes that claims speak of


def claims(rows: list[Row], command: str) -> list[dict[str, Any]]:
    """Claim 4: latency keeps its bound; with V error falls and backlog grows."""
    own = [row for row in rows if row["scheme"] == TSFA]
    longest = max(row["rounds"] for row in own)
    found = []
    for cell, scores in dict.fromkeys((row["cell"], row["scores"]) for row in own):
        here = [row for row in own if (row["cell"], row["scores"]) == (cell, scores)]
        where = f"{cell} cell, {scores} scores"
        for v in dict.fromkeys(row["v"] for row in here):
            over = [
                max(row["worst"]) / (1 + 1 / math.sqrt(row["rounds"]))
                for row in here
                if row["v"] == v
            ]
            horizons = ", ".join(str(row["rounds"]) for row in here if row["v"] == v)
            found.append(
                claim(f"4-latency-{cell}-{scores}-{v:g}",
                      f"{where}, V = {v:g}: worst client's mean latency / (tau (1 + 1/sqrt T)), "
                      f"worst seed, T = {horizons}", "<= 1", over, max(over) <= 1, command)
            )  # fmt: skip
        found += _sifted(rows, cell, scores, where, command)
        at_end = sorted((r for r in here if r["rounds"] == longest), key=lambda r: float(r["v"]))
        vs = ", ".join(f"{row['v']:g}" for row in at_end)
        for key, words, least in (("error", "error dropped", -1), ("queue_end", "last queue", 1)):
            means = [statistics.fmean(row[key]) for row in at_end]
            steps = [least * (b - a) for a, b in pairwise(means)]
            word = "grows" if least > 0 else "falls"
            found.append(
                claim(f"4-{key}-{cell}-{scores}", f"{where}, T = {longest}, V = {vs}: {words}, "
                      "mean of seeds", f"{word} with V", means, min(steps) > 0, command)
            )  # fmt: skip
    return found


def _sifted(
    rows: list[Row], cell: str, scores: str, where: str, command: str
) -> list[dict[str, Any]]:
    """The same bound where only clients are asked that can keep the budget alone in the band."""
    key = (SIFTED, cell, scores)
    own = [row for row in rows if (row["scheme"], row["cell"], row["scores"]) == key]
    usual = [r for r in rows if (r["scheme"], r["cell"], r["scores"]) == (TSFA, cell, scores)]
    if not any(own) or own[0]["worst"] in [row["worst"] for row in usual]:  # nobody is left out
        return []
    over = [max(row["worst"]) / (1 + 1 / math.sqrt(row["rounds"])) for row in own]
    horizons = ", ".join(str(row["rounds"]) for row in own)
    return [
        claim(f"4-latency-{cell}-{scores}-sifted", f"{where}, V = {own[0]['v']:g}, only clients "
              "that can keep the budget alone in the band are asked: the same, T = "
              f"{horizons}", "<= 1", over, max(over) <= 1, command)
    ]  # fmt: skip


def tables(results: dict[str, Any]) -> str:
    """Return the section of the page: a table for each cell and profile of scores."""
    setting = results["setting"]
    parts = [
        f"Measured on {results['machine']} by `{results['command']}`; raw figures in "
        f"`channel.json`. {setting['clients']} clients of equal weight, all asked in every round, "
        f"an upload of {setting['whole_bits'] / 1e3:.0f} kbit in 8 pieces "
        f"({setting['smallest_bits'] / 1e3:.0f} kbit at least), {setting['compute_s']} s of "
        "computing, links by this house's radio, "
        f"{len(results['seeds'])} seeds. Pieces weigh alike (flat, as Adam gives them) or half of "
        "the one before (steep, synthetic), always the same. Latencies and queues in budgets; "
        "error is the part of the squared change that is dropped, all of it where a client sends "
        "nothing, and in brackets that of uploads that were sent. The worst client's mean latency "
        "is that of the worst seed, all else a mean of seeds. Where three figures stand, they "
        "are those of the first 20, 200 and 1000 rounds; the exact bandwidth rule was followed "
        "for 20, the round's queue for 200. Clients that need more than the budget on average even "
        "with the whole band to themselves cannot be helped by any schedule; a scheme that asks "
        "none of them stands beside the others.\n"
    ]
    rows: list[Row] = results["rows"]
    for cell, scores in dict.fromkeys((row["cell"], row["scores"]) for row in rows):
        kept = setting["cells"][cell]
        parts.append(
            f"**{cell} cell, {scores} scores** ({kept['radius_m']} m, {kept['power_dbm']} dBm, "
            f"{kept['bandwidth_hz'] / 1e6:g} MHz, budget {kept['budget_s']} s; alone in the band, "
            f"{_beyond(setting['alone'][cell])})\n"
        )
        parts.append(_table([r for r in rows if (r["cell"], r["scores"]) == (cell, scores)]))
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    lines = [
        "| scheme | V | error dropped | worst client's mean latency | mean of the round's slowest "
        "| queue, last and largest | uploads skipped |",
        "|" + "---|" * 7,
    ]
    for scheme, v in dict.fromkeys((row["scheme"], row["v"]) for row in rows):
        own = sorted(
            (row for row in rows if (row["scheme"], row["v"]) == (scheme, v)),
            key=lambda row: int(row["rounds"]),
        )
        end = own[-1]
        queue = f"{_mean(end, 'queue_end'):.2f}, {_mean(end, 'queue_max'):.2f}"
        cells = [
            scheme,
            "" if v is None else f"{v:g}",
            _over_time(own, lambda row: _mean(row, "error"), 3)
            + f" ({_mean(end, 'error_sent'):.3f})",
            _over_time(own, lambda row: float(max(row["worst"])), 3),
            f"{_mean(end, 'slowest'):.2f}",
            "" if v is None else queue,
            f"{100 * _mean(end, 'skipped'):.1f} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _beyond(alone: list[list[float]]) -> str:
    """Say how many clients need more than the budget alone in the band, seed by seed."""
    counts = ", ".join(str(sum(each > 1 for each in needs)) for needs in alone)
    return f"{counts} clients of {len(alone[0])} in the seeds need more"


def _mean(row: Row, key: str) -> float:
    return statistics.fmean(row[key])


def _over_time(rows: list[Row], figure: Callable[[Row], float], digits: int) -> str:
    return ", ".join(f"{figure(row):.{digits}f}" for row in rows)
