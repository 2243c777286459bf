"""From measurements to claims, a page and a picture."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.picture import photograph

FIRST = 1  # the first round is not compared: it pays for memory and kernels
TRIED = 3  # nor are the first three where airtune still tries cohort sizes
COMMAND = "python -m benchmarks.speed.run --only"
Row = dict[str, Any]


def ratios(measured: Row, upper: str, lower: str) -> list[float]:
    """Return round by round how many times longer ``upper`` took than ``lower``, warm."""
    pairs = zip(measured["seconds"][upper], measured["seconds"][lower], strict=True)
    return [a / b for a, b in pairs][TRIED if "auto" in (upper, lower) else FIRST :]


def differ(measured: Row, rounds: slice, without: str = "") -> float:
    """Return by how much the losses of a workload's entries differ at most in these rounds."""
    entries = [losses for name, losses in measured["losses"].items() if name != without]
    by_round = list(zip(*entries, strict=True))[rounds]
    return max(max(losses) - min(losses) for losses in by_round)


def claims(raw: Row) -> list[Row]:
    """Return every claim with its target, its figure (median), range, and whether it holds."""
    found: list[Row] = []

    def claim(
        id: str, what: str, values: Sequence[float], target: float, up: bool, key: str
    ) -> None:
        value = median(values)
        found.append(
            {
                "id": id,
                "what": what,
                "target": f"{'>=' if up else '<='} {target:g}",
                "measured": round(value, 3),
                "range": [round(min(values), 3), round(max(values), 3)],
                "holds": value >= target if up else value <= target,
                "command": f"{COMMAND} {key}",
            }
        )

    toys = [*raw.get("S1", []), *raw.get("S1-512", [])]
    for measured in toys:
        what = f"{measured['workload']}: serial airtune / loop"
        claim("S1", what, ratios(measured, "serial", "loop"), 1.03, False, "S1 S1-512")
    for measured in raw.get("S2", []):
        what = f"{measured['workload']}: serial airtune / loop"
        claim("S2", what, ratios(measured, "serial", "loop"), 1.03, False, "S2 --minilm FOLDER")
    targets = zip(("S3", "S4", "S5"), (3.0, 2.0, 1.3), raw.get("S3", []), strict=False)
    for id, target, measured in targets:
        what = f"{measured['workload']}: loop / cohort of all clients"
        claim(id, what, ratios(measured, "loop", "cohort"), target, True, "S3")
    for measured in [*toys, *raw.get("S2", []), *raw.get("S3", [])]:
        what = f"{measured['workload']}: cohorts chosen by airtune / serial"
        claim("S6", what, ratios(measured, "auto", "serial"), 1.0, False, "S1 S2 S3")
    for target, measured in zip((1.8, 3.0), raw.get("S7", []), strict=False):
        what = f"{measured['workload']}: recomputed / cached, warm"
        claim("S7", what, ratios(measured, "recomputed", "cached"), target, True, "S7")
    if "S8" in raw:
        few, many = raw["S8"]
        for key, what in (("peak_bytes", "peak"), ("end_bytes", "memory after the last round")):
            ratio = (many[key] - many["state_bytes"]) / few[key]
            claim("S8", f"{what}, 100,000 clients / 10 clients", [ratio], 1.15, False, "S8")
    if "S9" in raw:
        pairs = zip(raw["S9"]["airtune"], raw["S9"]["imports"], strict=True)
        what = "start to first round / imports of torch, transformers and peft"
        claim("S9", what, [a / b for a, b in pairs], 1.3, False, "S9")
    return found


def write(results: Row, folder: Path) -> None:
    """Write README.md and figure.png beside results.json."""
    raw = results["raw"]
    parts = [_INTRODUCTION.format(machine=results["machine"], versions=_list(results["versions"]))]
    parts += ["| id | what | target | median (range) | holds |", "|---|---|---|---|---|"]
    for claim in results["claims"]:
        low, high = claim["range"]
        spread = "" if low == high else f" ({low:.2f} to {high:.2f})"
        holds = "yes" if claim["holds"] else "**no**"
        parts.append(
            f"| {claim['id']} | {claim['what']} | {claim['target']} | {claim['measured']:.3f}"
            f"{spread} | {holds} |"
        )
    paired = [m for key in ("S1", "S1-512", "S2", "S3", "S7") for m in raw.get(key, [])]
    if paired:
        first = max(differ(measured, slice(1)) for measured in paired)
        last = max(differ(measured, slice(None)) for measured in paired)
        own = max(differ(measured, slice(None), without="loop") for measured in paired)
        parts.append(
            f"\nLosses of a workload's entries agree to {first:.0e} in the first round. Rounding "
            f"grows from there as training goes on, to {last:.0e} at most, on an encoder of random "
            f"weights; airtune's own variants differ by {own:.0e} throughout.\n"
        )
    parts += _notes(raw) + _peers(raw.get("peers", []))
    notes = folder / "notes.md"
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8"))
    parts.append("![ratios](figure.png)")
    (folder / "README.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    _draw(results["claims"], folder / "figure.png")


_INTRODUCTION = """# Speed

Ratios of wall time, taken round by round in turn within one process; {machine}; {versions}. This
page is written by `run.py`; raw figures are in `results.json`. `loop` is federated averaging as one
writes it by hand (`loop.py`), with LoRA in ten lines instead of peft's layers, which is faster on
toys. airtune writes its ledger and its checkpoints meanwhile, encodes and decodes every message and
simulates the radio. The first round is not compared; where airtune chooses cohorts, the first
three, in which it tries sizes.
"""


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _notes(raw: Row) -> list[str]:
    notes = []
    if "options" in raw:
        toy, large = raw["options"]
        compiled = _spread(ratios(toy, "compiled", "serial"))
        half = _spread(ratios(large, "bfloat16", "serial"))
        notes.append(
            f"Options, over serial runs without them: `machine.compile` takes {compiled} of the "
            f"time on {toy['workload']} (its first round took "
            f"{toy['seconds']['compiled'][0]:.0f} s); `model.dtype: bfloat16` takes {half} on "
            f"{large['workload']}.\n"
        )
    if "profile" in raw:
        by_share = sorted(raw["profile"]["shares"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in by_share)
        notes.append(f"A cohort's steps on {raw['profile']['workload']} are: {shares}.\n")
    if "S8" not in raw:
        return notes
    few, many = raw["S8"]
    return [
        *notes,
        f"Population: {many['peak_bytes'] / 1e6:.0f} MB at the peak and "
        f"{many['end_bytes'] / 1e6:.0f} MB after the last round with 100,000 clients, "
        f"{few['peak_bytes'] / 1e6:.0f} and {few['end_bytes'] / 1e6:.0f} MB with 10; the same "
        f"200,000 texts. {many['touched']} clients had state ({many['state_bytes'] / 1e3:.0f} kB); "
        f"reading one back takes {many['from_files_ms']:.2f} ms from a file, "
        f"{many['from_memory_ms']:.2f} ms from memory (median).\n",
    ]


def _peers(measured: Sequence[Row]) -> list[str]:
    if not measured:
        return []
    lines = [
        "## Beside other toolkits",
        "",
        "Whole processes on the toy of S1, six rounds; medians of 5 runs (8 clients) or 3 (64),",
        "with range. A warm round is the median of rounds 3 to 6. An entry whose losses differ",
        "from the loop's by more than 1e-4 is void. On toys ratios against Flower and NVFlare",
        "measure how their processes start and talk, not how they train.",
        "",
        "| clients | toolkit | whole run, s | warm round, s | peak memory, MB | losses differ by |",
        "|---|---|---|---|---|---|",
    ]
    for entry in measured:
        reference = entry["entries"]["loop"][0]["round_losses"]
        for name, runs in entry["entries"].items():
            walls = [run["wall_seconds"] for run in runs]
            warm = [median(run["round_seconds"][2:]) for run in runs]
            peak = max(run["peak_bytes"] for run in runs) / 1e6
            off = max(
                abs(a - b)
                for run in runs
                for a, b in zip(run["round_losses"], reference, strict=True)
            )
            void = "" if off <= 1e-4 else " (void)"
            lines.append(
                f"| {entry['workload'].removeprefix('toy-')} | {name}{void} | {_spread(walls)} | "
                f"{_spread(warm)} | {peak:.0f} | {off:.0e} |"
            )
    return [*lines, ""]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _draw(found: Sequence[Row], image: Path) -> None:
    """Draw each claim's figure over its target; beyond 1 is better than asked for."""
    import plotly.graph_objects as go

    names, scores, texts = [], [], []
    for claim in found:
        sign, target = claim["target"].split()
        value, goal = claim["measured"], float(target)
        names.append(f"{claim['id']}  {claim['what']}")
        scores.append(value / goal if sign == ">=" else goal / value)
        texts.append(f"{value:.2f} (target {claim['target']})")
    colours = ["#2a7f62" if score >= 1 else "#b3452c" for score in scores]
    bars = go.Bar(
        x=scores[::-1], y=names[::-1], text=texts[::-1], orientation="h",
        marker={"color": colours[::-1]}, textposition="auto",
    )  # fmt: skip
    figure = go.Figure(bars)
    figure.add_vline(x=1.0, line={"color": "#333", "dash": "dot"})
    figure.update_layout(
        template="simple_white", height=80 + 42 * len(names), width=1150,
        margin={"l": 20, "r": 20, "t": 50, "b": 40}, yaxis={"automargin": True},
        title="Speed and memory against their targets; right of the line is better",
        xaxis={"title": "times better than the target"},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "figure.html"
        figure.write_html(page, include_plotlyjs=True)
        photograph(page, image)
