"""The page beside the results; every figure comes from them."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.picture import photograph
from benchmarks.soft import cases as of
from benchmarks.soft import channel_page, claims, rank, selection

NOTES = Path(__file__).parent / "notes.md"
# Measured apart, each by a script of its own: heading, file of results, and what writes of it.
APART: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("Time of choosing components", "selection.json", selection.table),
    ("TSFA without training", "channel.json", channel_page.tables),
    ("The rank, chosen before the run", "rank.json", rank.table),
)


def results(
    found: dict[of.Case, claims.Kept], command: str, machine: str, versions: dict[str, str]
) -> dict[str, Any]:
    """Claims, and the curve of every run."""
    rows: claims.Rows = {}
    for case, kept in found.items():
        rows.setdefault(case.row, {})[case.seed] = kept
    return {
        "claims": claims.claims(rows, command),
        "command": command,
        "machine": machine,
        "versions": versions,
        "seeds": sorted({case.seed for case in found}),
        "rows": rows,
    }


def write(results: dict[str, Any], folder: Path) -> None:
    """Write README.md and figure.png."""
    rows: claims.Rows = results["rows"]
    apart = [
        (heading, json.loads((folder / name).read_text(encoding="utf-8")), section)
        for heading, name, section in APART
        if (folder / name).exists()
    ]
    every = results["claims"] + [claim for _, found, _ in apart for claim in found["claims"]]
    parts = [
        "# SOFT, TSFA and their baselines\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is written by it, "
        "raw curves are in `results.json`. Banking77 (all 3,080 test texts) on MiniLM, ten "
        "clients, Dirichlet 0.5, a frozen head of one example a class, 20 rounds. Methods are "
        "paired: one seed means one partition, one order of batches, one channel. Final accuracy "
        "is the mean of rounds 16 and 20; its standard error from the test set is 0.8 points.\n\n"
        "![accuracy against bits](figure.png)\n",
        "## Claims\n",
        "Several figures are those of seeds, or of what the claim names.\n",
        _claims(sorted(every, key=lambda claim: int(claim["id"][0]))),
    ]
    for heading, listed in (
        ("Everything arrives", of.SENT),
        ("A budget of 0.35 s on weak links", of.SCHEDULES),
        ("One thing changed at a time", of.ABLATIONS),
        ("An easier start", of.EASY),
        ("What averaging A and B apart leaves out", of.COVARIANCE),
    ):
        if any(title in rows for title, *_ in listed):
            best = listed[0][0] if listed is of.EASY else of.IDEAL_ROW
            parts += [f"## {heading}\n", _table(rows, [title for title, *_ in listed], best)]
    if any(title in rows for title, *_ in of.DECODER):
        parts += ["## A decoder\n", _decoder_table(rows)]
    parts += [f"## {heading}\n\n{section(found)}" for heading, found, section in apart]
    parts.append(NOTES.read_text(encoding="utf-8"))
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")
    _picture(rows, folder / "figure.png")


def _claims(found: list[dict[str, Any]]) -> str:
    lines = ["| id | what | target | measured | holds |", "|---|---|---|---|---|"]
    for claim in found:
        holds = {True: "yes", False: "**no**", None: ""}[claim["holds"]]
        values = ", ".join("never" if v is None else f"{v:.3g}" for v in claim["measured"])
        lines.append(
            f"| {claim['id']} | {claim['what']} | {claim['target']} | {values} | {holds} |"
        )
    return "\n".join(lines) + "\n"


def _table(rows: claims.Rows, titles: Iterable[str], best: str) -> str:
    lines = [
        "| method | seeds | final accuracy | of ideal | gain of ideal's | Mbit up | of ideal "
        "| error dropped | worst client's mean latency, s | mean round, s | seconds | uploads |",
        "|" + "---|" * 12,
    ]
    for title in titles:
        kept = [each for _, each in sorted(rows.get(title, {}).items())]
        if not kept:
            continue
        ratios = claims.of_ideal(rows, title, best)
        uploads = sum(each["statuses"].get("delivered", 0) for each in kept)
        asked = sum(sum(each["statuses"].values()) for each in kept)
        cells = [
            title,
            str(len(kept)),
            _spread([claims.final(each) for each in kept], 3),
            _spread(ratios["accuracy"], 3),
            _spread(ratios["gain"], 2),
            _spread([each["uplink_bits"] / 1e6 for each in kept], 1),
            _spread(ratios["bits"], 2),
            _spread([each["drop_error"] for each in kept if "drop_error" in each], 2),
            _spread([each["worst_latency"] for each in kept], 3),
            _spread([each["round_latency"] for each in kept], 3),
            _spread([each["total_seconds"][-1] for each in kept], 1),
            f"{uploads} of {asked}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _decoder_table(rows: claims.Rows) -> str:
    lines = [
        "stories260k on the instructions of `instruct_small`, a tenth of them for the test, one "
        "seed.\n",
        "| method | perplexity before, after | Mbit up | seconds |",
        "|---|---|---|---|",
    ]
    for title, *_ in of.DECODER:
        for kept in rows.get(title, {}).values():
            first, last = kept["perplexity"][0], kept["perplexity"][-1]
            lines.append(
                f"| {title.removeprefix('decoder: ')} | {first:.1f}, {last:.2f} "
                f"| {kept['uplink_bits'] / 1e6:.2f} | {kept['total_seconds'][-1]:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    middle = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _picture(rows: claims.Rows, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panel = make_subplots(1, 2, subplot_titles=["everything arrives", "weak links, 0.35 s"])
    panels = (of.SENT, "total_uplink_bits", 1e6), (of.SCHEDULES, "total_seconds", 1.0)
    for column, (listed, cost, unit) in enumerate(panels, 1):
        for title, *_ in listed:
            kept = list(rows.get(title, {}).values())
            if kept:
                x = [statistics.fmean(each) / unit for each in zip(*(k[cost] for k in kept),
                                                                   strict=True)]  # fmt: skip
                y = [statistics.fmean(each) for each in zip(*(k["accuracy"] for k in kept),
                                                            strict=True)]  # fmt: skip
                panel.add_trace(go.Scatter(x=x, y=y, name=title, mode="lines+markers"), 1, column)
    panel.update_xaxes(title="Mbit up", row=1, col=1)
    panel.update_xaxes(title="simulated seconds", row=1, col=2)
    panel.update_yaxes(title="accuracy (mean of seeds)", row=1, col=1)
    panel.update_layout(width=1100, height=460, template="plotly_white")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        page.write_text(panel.to_html(include_plotlyjs=True))
        photograph(page, path)
