"""The page beside the results; every figure comes from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import table
from benchmarks.radio import figure
from benchmarks.radio.cost import LENGTHS, SIZES

Row = dict[str, Any]


def write(folder: Path) -> None:
    """Write README.md and figure.png from links.json and allocation.json."""
    links, allocation = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("links", "allocation")
    )
    (folder / "README.md").write_text(page(links, allocation), encoding="utf-8")
    figure.write(links["distributions"], links["setting"]["levels"], folder / "figure.png")


def page(links: Row, allocation: Row) -> str:
    """Return the page."""
    setting = links["setting"]
    every = [*allocation["claims"], *links["claims"]]
    commands = dict.fromkeys(claim["command"] for claim in every)
    failed = list(dict.fromkeys(claim["id"] for claim in every if claim["holds"] is False))
    ours, slsqp = allocation["ours"], allocation["slsqp"]
    parts = [
        "# Cells by preset: SNR, airtime, and what they take to compute\n",
        f"Measured on {links['machine']}. This page is written by `{links['command']}`; raw "
        "figures are in `links.json` and `allocation.json`.\n",
        "![distributions of SNR and airtime](figure.png)\n",
        f"In each preset {setting['clients']:,} clients are placed with each of "
        f"{len(links['seeds'])} seeds and followed for {setting['rounds']} rounds. In every round "
        f"{setting['cohort']} at a time share the preset's band, and each sends "
        f"{setting['payload_bits'] / 1e6:g} Mbit at 23 dBm; repeats of packets are in the airtime. "
        "SNR is that over a tenth of the band. Who is in outage sends nothing and is not waited "
        "for. In the figure, airtime is that of a round: until the last of its uploads is "
        "through.\n",
        "## Claims\n",
        _verdict(failed),
        "\n".join(table(every)) + "\n",
        "## SNR and airtime\n",
        _drawn(links["distributions"], setting["levels"]),
        "Quantiles of 5, 50 and 95 %; in `links.json` 101 of them. Equal shares serve the median "
        "client sooner and the last one later; min-max-delay gives what fast links do not need to "
        "the slowest. In the tail both are nearly the same: a link too weak to fill its share (no "
        "power is spread thinner than to -5 dB of SNR) gains nothing by more spectrum. The ideal "
        "cell is left out, its SNR being infinite. Nobody is indoors but in the office, nor does "
        "a preset have interference; `indoor_fraction` and `noise_rise_db` are there for both.\n",
        "## Time\n",
        _times(links["cost"]["times"]),
        f"Milliseconds of one round's links, medians of {setting['timed_rounds']} rounds in a "
        "row, first by the wall and then by the processor; the range is by the wall. Building has "
        "the places and, where they are asked for or clients move, the maps. Processor time is "
        "what the code takes; wall time has what other work on the same cores took as well. Who "
        "moves takes more, because sight, shadowing and loss are found anew each round, and more "
        "still for each leg that is walked in between: at 500 km/h a client crosses a small cell "
        "several times in the 10 s from one round to the next. More than half of a leg's time is "
        "the sine and cosine of where its waypoint lies.\n",
        "## Memory\n",
        _memory(links["cost"]["memory"]),
        "MiB by tracemalloc. Maps have the same size whatever the clients.\n",
        "## Dividing the band\n",
        f"Min-max-delay for {ours['clients']:,} clients, payloads of 4 to 20 Mbit and "
        f"{allocation['per_client_hz'] / 1e3:g} kHz each: the last has finished after "
        f"{ours['finish_s']:.6f} s, found in {ours['seconds']:.3f} s. SLSQP finds "
        f"{slsqp['finish_s']:.6f} s in {slsqp['seconds']:.0f} s and {slsqp['iterations']} "
        "iterations.\n",
        "| clients | seed | finish, s | wall, s | processor, s |\n|---|---|---|---|---|",
        "\n".join(
            f"| {row['clients']:,} | {row['seed']} | {row['finish_s']:.3f} | {row['seconds']:.3f} "
            f"| {row['processor_seconds']:.3f} |"
            for row in allocation["many"]
        )
        + "\n",
        "## Commands\n",
        "\n".join(f"    {command}" for command in commands) + "\n",
        "`benchmarks.radio.links --page` writes this page anew without measuring.\n",
    ]
    return "\n".join(parts)


def _verdict(failed: Sequence[str]) -> str:
    found = f"Not everywhere within its target: {', '.join(failed)}. " if failed else ""
    return (
        f"{found}R4's budget is 50 ms for {SIZES[-1]:,} clients, judged by the processor and by "
        "the wall; cells that miss it stay in the table. Several figures are those of what the "
        "claim names.\n"
    )


def _drawn(rows: Sequence[Row], levels: Sequence[float]) -> str:
    shown = [list(levels).index(level) for level in (0.05, 0.5, 0.95)]

    def quantiles(curve: Sequence[float], digits: str) -> str:
        return ", ".join(format(curve[place], digits) for place in shown)

    lines = [
        "| preset | band, MHz | in outage | SNR, dB | a client's airtime, equal, s "
        "| min-max-delay, s | a round's, equal, s | min-max-delay, s |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        cells = [
            row["preset"], f"{row['band_hz'] / 1e6:g}", f"{100 * row['outage']:.2f} %",
            quantiles(row["snr_db"], ".1f"),
            *(quantiles(row[key][name], ".3g") for key in ("client_s", "round_s")
              for name in ("equal", "min-max-delay")),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _times(rows: Sequence[Row]) -> str:
    sizes = " | ".join(f"{size:,} clients" for size in SIZES)
    lines = [f"| preset | option | {sizes} | range | building |", "|" + "---|" * 7]
    for preset, option, own in _cells(rows):
        each = [f"{row['ms']:.3g}, {row['processor_ms']:.3g}" for row in own]
        low, high = own[-1]["range_ms"]
        cells = [preset, option, *each, f"{low:.3g} to {high:.3g}",
                 f"{own[-1]['build_ms']:.0f}, {own[-1]['build_processor_ms']:.0f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _memory(rows: Sequence[Row]) -> str:
    sizes = " | ".join(f"{size:,} clients: held, peak" for size in SIZES)
    rounds = " | ".join(f"{SIZES[1]:,} after {n} rounds" for n in LENGTHS[1:])
    lines = [f"| preset | option | {sizes} | {rounds} |", "|" + "---|" * (5 + len(LENGTHS[1:]))]
    for preset, option, own in _cells(rows):
        each = [f"{row['held_bytes'] / 2**20:.3g}, {row['peak_bytes'] / 2**20:.3g}" for row in own]
        lines.append(f"| {' | '.join([preset, option, *each])} |")
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Return the rows of each preset and option, in the order in which they were measured."""
    keys = dict.fromkeys((row["preset"], row["option"]) for row in rows)
    return [(*key, [row for row in rows if (row["preset"], row["option"]) == key]) for key in keys]
