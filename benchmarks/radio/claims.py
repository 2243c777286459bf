"""What the links' distributions, times and bytes decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.claims import Claim, Claims
from benchmarks.radio.cost import OPTIONS, OTHERS, SIZES, growth

BUDGET_MS = 50.0
Row = dict[str, Any]


def claims(drawn: Sequence[Row], cost: dict[str, list[Row]], command: str) -> list[Claim]:
    """R4: time of a round; R5: its memory; R6: min-max-delay against equal shares."""
    found = Claims(command, digits=9)
    times = [row for row in cost["times"] if row["clients"] == SIZES[-1]]
    many = f"{SIZES[-1]:,} clients, links of a round"
    groups = [
        (option, [row for row in times if row["option"] == option], "preset") for option in OPTIONS
    ]
    for preset in dict.fromkeys(preset for preset, _ in OTHERS):
        other = [row for row in times if (row["preset"], row["option"]) in OTHERS]
        groups.append((preset, [row for row in other if row["preset"] == preset], "option"))
    for which, own, key in groups:
        for word, ms in (("processor", "processor_ms"), ("wall", "ms")):
            _in_budget(found, f"{many}, {which}: {word} ms, medians: {_names(own, key)}",
                       [row[ms] for row in own])  # fmt: skip
    plain = groups[0][1]
    for word, ms in (("processor", "processor_ms"), ("wall", "ms")):
        _in_budget(found, f"{many}, and the cell built for it: {word} ms, medians: "
                   f"{_names(plain, 'preset')}",
                   [row[f"build_{ms}"] + row[ms] for row in plain])  # fmt: skip
    _memory(found, cost["memory"])
    later = [row["largest_min_max_over_equal"] for row in drawn]
    found.add("R6", "planned end of the last client by min-max-delay over that by equal shares, "
              f"the largest of all rounds: {_names(drawn, 'preset')}", "<= 1 + 1e-9", later,
              max(later) <= 1 + 1e-9)  # fmt: skip
    return found.found


def _in_budget(found: Claims, what: str, taken: Sequence[float]) -> None:
    found.add("R4", what, f"<= {BUDGET_MS:g}", taken, max(taken) <= BUDGET_MS)


def _memory(found: Claims, rows: Sequence[Row]) -> None:
    cells = list(dict.fromkeys((row["preset"], row["option"]) for row in rows))
    by_size, by_length = [], []
    for cell in cells:
        own = [row for row in rows if (row["preset"], row["option"]) == cell]
        few, middle, many = (row for row in own if row["rounds"] == 1)
        longest = max(own, key=lambda row: int(row["rounds"]))
        for key in ("held_bytes", "peak_bytes"):
            by_size.append(growth(few, middle, many, key))
            by_length.append(longest[key] / middle[key])
    named = "; ".join(f"{preset}, {option}" for preset, option in cells)
    few, middle, many = (f"{size:,}" for size in SIZES)
    found.add("R5", f"bytes for each further client from {middle} to {many} over those from {few} "
              f"to {middle}, held and at the peak: {named}", "<= 1.05: linear at most",
              [round(each, 4) for each in by_size], max(by_size) <= 1.05)  # fmt: skip
    found.add("R5", f"{middle} clients, bytes after {longest['rounds']} rounds over those after "
              f"one, held and at the peak: the same", "<= 1.01: constant",
              [round(each, 4) for each in by_length], max(by_length) <= 1.01)  # fmt: skip


def _names(rows: Sequence[Row], key: str) -> str:
    return ", ".join(row[key] for row in rows)
