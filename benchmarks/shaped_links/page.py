"""What the test bed's exchanges say of the claims, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import Claims, table
from benchmarks.shaped_links.figure import draw

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.shaped_links.run"
LARGE = 500_000  # bytes from which seconds are to be foreseen
NEAR, MEETS, OVERHEAD = 0.1, 0.95, 1.2
_PER_MESSAGE, _MESSAGES = 50_000, 2
Row = dict[str, Any]


def off(row: Row) -> float:
    """Return predicted over measured seconds of an upload, less 1."""
    return float(row["predicted_s"] / row["upload_s"] - 1.0)


def extra(row: Row, way: str) -> float:
    """Return bytes on the wire above 1.05 times the payload."""
    size = row["bytes"] if way == "up" else row["broadcast_bytes"]
    return float(row[f"{way}_bytes"] - 1.05 * size)


def undisturbed(rows: list[Row]) -> list[Row]:
    """Return exchanges in whose round the interface counted nothing else.

    That is an earlier, late upload, and in the last round the evaluation and the end of the run.
    """
    last = max(r["round"] for r in rows)
    fine = {(r["round"], r["client"]) for r in rows if r["status"] == "delivered"}
    here = [r for r in rows if (r["round"], r["client"]) in fine and r["round"] < last]
    return [r for r in here if r["round"] == 1 or (r["round"] - 1, r["client"]) in fine]


def met(rows: list[Row], deadline: float) -> list[bool]:
    """Return, by round, whether every device's upload was there in time."""
    by_round: dict[int, bool] = {}
    for row in rows:
        fine = row["status"] == "delivered" and row["wall_s"] <= deadline
        by_round[row["round"]] = by_round.get(row["round"], True) and fine
    return [by_round[round] for round in sorted(by_round)]


def followed(rows: list[Row], client: int, after: int) -> int | None:
    """Return the rounds from a change until one was planned within NEAR of what was measured."""
    now = {r["round"]: r for r in rows if r["client"] == client and r["round"] > after}
    for round in sorted(now):
        measured = now[round]["measured_mbit"]
        if measured and abs(now[round]["rate_mbit"] / measured - 1.0) <= NEAR:
            return round - after
    return None


def foreseen(results: dict[str, Any]) -> list[Row]:
    """Return large uploads over links that were as before when they were last measured.

    Of a change nobody knows before the second round after it.
    """
    found = []
    for name, case in results["cases"].items():
        changes = results["changes"][name]
        fresh = {(int(after) + since, int(client))
                 for after, changed in changes.items() for client in changed
                 for since in (1, 2)}  # fmt: skip
        found += [
            r for r in case["exchanges"]
            if r["upload_s"] and r["predicted_s"] and r["bytes"] >= LARGE
            and (r["round"], r["client"]) not in fresh
        ]  # fmt: skip
    return found


def judged(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was claimed, and whether it holds."""
    cases, deadline = results["cases"], results["deadline_s"]
    claims = Claims(COMMAND, digits=3)
    large = foreseen(results)
    # Until the first upload is reported, two rounds on, a link is known by what sounded it.
    for what, known in (
        ("over links as they were when last measured", large),
        ("of these planned by what sounded the links", [r for r in large if r["round"] <= 2]),
        ("of these planned by earlier uploads", [r for r in large if r["round"] > 2]),
    ):
        offs = np.abs([off(row) for row in known])
        claims.add("S1", f"predicted over measured seconds less 1, of {len(known)} uploads of "
                   f"0.5 MB and more, {what}: median, 95 % quantile, largest; share within 0.1",
                   "0.95 of them within 0.1",
                   [np.median(offs), np.quantile(offs, 0.95), offs.max(), (offs <= NEAR).mean()],
                   bool(np.quantile(offs, 0.95) <= NEAR))  # fmt: skip
    for way in ("up", "down"):
        each = [extra(row, way) / _MESSAGES for name in cases
                for row in undisturbed(cases[name]["exchanges"])]  # fmt: skip
        claims.add("S2", f"bytes on the wire {way} above 1.05 x payload, kB a message (a round has "
                   "two each way, the round's own and an idle one; polls count too): median, "
                   "largest", "50", [np.median(each) / 1e3, max(each) / 1e3],
                   max(each) <= _PER_MESSAGE)  # fmt: skip
    shares = {n: float(np.mean(met(cases[n]["exchanges"], deadline))) for n in cases}
    claims.add("S3", "rounds in which all arrived by the deadline: adaptive; dense",
               "0.95; fewer", [shares["adaptive"], shares["dense"]],
               shares["adaptive"] >= MEETS > shares["dense"])  # fmt: skip
    waits = [
        followed(cases["changing"]["exchanges"], int(client), int(after))
        for after, changed in results["changes"]["changing"].items()
        for client in changed
    ]
    claims.add("S4", "rounds until a changed rate was planned with, by change (twice a rise, twice "
               "a fall)", "3",
               [float("nan") if each is None else each for each in waits],
               all(each is not None and each <= 3 for each in waits))  # fmt: skip
    for name, case in cases.items():
        engine = [row["engine_s"] for row in case["exchanges"] if row["engine_s"] is not None]
        idle = [each for times in case["idle_s"] for each in times]
        ratio = float(np.median(engine) / np.median(idle))
        claims.add("S5", f"{name}: seconds of an exchange besides transfer and computing, of an "
                   "idle one (medians), ratio", "1.2",
                   [float(np.median(engine)), float(np.median(idle)), ratio],
                   ratio <= OVERHEAD)  # fmt: skip
    return claims.found


def written(results: dict[str, Any], folder: Path) -> str:
    """Return the page, and draw its picture beside it."""
    draw(results, folder / "figure.png")
    lines = [
        "# Runs over shaped links\n",
        f"Measured on {results['machine']}, flwr {results['versions']['flwr']}. This page is "
        f"written by `{COMMAND}`; raw figures are in `results.json`.\n",
        "A server and four devices, each in a network namespace of one machine, joined by virtual "
        f"Ethernet that token buckets shape to {_listed(results['rates_mbit'])} Mbit/s up and "
        f"{results['down_mbit']:g} down; over TLS, with keys. The devices fine-tune a sentence "
        "encoder (LoRA of rank 64) with `cell.measured`: nobody tells the server the rates. "
        "`dense` is fedavg, whose uploads are all waited for so that it shows how late they are; "
        "`adaptive` is SOFT with `control: none`, which sends what its grant holds; `changing` is "
        "that while two links change. The deadline is "
        f"{results['deadline_s']:g} s from order to arrival, by the "
        "clock on the wall. After each round the server times an idle exchange with each device, "
        "which is what Flower takes without a payload.\n",
        "![Rates and uploads while links change](figure.png)\n",
        "## Claims\n",
        "\n".join(table(results["claims"])) + "\n",
        "## By device\n",
        "| case | Mbit/s | arrived in time | upload, MB | upload, s | order to arrival, s | "
        "largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("dense", "adaptive"):
        for client, mbit in enumerate(results["rates_mbit"]):
            own = [r for r in results["cases"][name]["exchanges"] if r["client"] == client]
            sent = [r for r in own if r["status"] == "delivered"]
            fine = np.mean(met(own, results["deadline_s"]))
            seconds = [r["upload_s"] for r in sent if r["upload_s"]]
            lines.append(
                f"| {name} | {mbit:g} | {fine:.2f} | {_median([r['bytes'] / 1e6 for r in sent])} | "
                f"{_median(seconds)} | {_median([r['wall_s'] for r in sent])} | "
                f"{max((r['wall_s'] for r in own), default=np.nan):.1f} |"
            )
    lines.append("\nMedians, but for the last column and the shares.")
    return "\n".join(lines) + "\n"


def _listed(numbers: list[float]) -> str:
    *most, last = (f"{each:g}" for each in numbers)
    return f"{', '.join(most)} and {last}"


def _median(values: list[float]) -> str:
    return f"{np.median(values):.2f}" if values else "-"
