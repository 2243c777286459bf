"""The page beside the results; every figure comes from them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.adald import claims as of
from benchmarks.adald.cases import TABLE_ALPHAS, TABLE_BANDS, TABLE_ROWS, Case
from benchmarks.picture import photograph

NOTES = Path(__file__).parent / "notes.md"
Groups = dict[str, of.Rows]


def results(
    found: dict[Case, of.Kept], command: str, machine: str, versions: dict[str, str]
) -> dict[str, Any]:
    """Claims, and the curve of every run."""
    groups: Groups = {}
    for case, kept in found.items():
        groups.setdefault(case.group, {}).setdefault(case.row, {})[case.seed] = kept
    return {
        "claims": of.claims(groups, command),
        "command": command,
        "machine": machine,
        "versions": versions,
        "seeds": sorted({case.seed for case in found}),
        "groups": groups,
    }


def write(results: dict[str, Any], folder: Path) -> None:
    """Write README.md and figure.png."""
    groups: Groups = results["groups"]
    parts = [
        "# AdaLD, its baselines, and a coding that needs a fraction of its bits\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is "
        "written by it, raw curves are in `results.json`. Bits are those of real messages. Methods "
        "are paired: one seed means one partition, one draw of SNRs, one order of batches. Final "
        "accuracy is the mean of the last three rounds. Nothing here is the paper's but the method."
        "\n\n![accuracy against bits](figure.png)\n",
        "## Claims\n",
        _claims(results["claims"]),
    ]
    titles = {
        "encoder": "MiniLM, Dirichlet 0.1, 60 kHz a client, 300 public texts",
        "one-token": "One-token language (see proxy.py), Dirichlet 0.1, 100 kHz, 500 public texts",
    }
    for group, title in titles.items():
        if group in groups:
            parts += [f"## {title}\n", _bits(groups[group])]
    parts += _table(groups)
    for group in ("3 layers, 6 at the server", "projections"):
        if group in groups:
            parts += [f"## MiniLM: {group}\n", _accuracies(groups[group])]
    for group in ("tinystories", "shakespeare"):
        if group in groups:
            parts += [f"## Token logits: {group}\n", _perplexities(groups[group])]
    parts.append(NOTES.read_text())
    (folder / "README.md").write_text("\n".join(parts))
    _draw(groups, folder / "figure.png")


def _claims(found: Sequence[dict[str, Any]]) -> str:
    lines = ["| id | what | target | by seed | holds |", "|---|---|---|---|---|"]
    for claim in found:
        values = ", ".join(v if isinstance(v, str) else f"{v:.3g}" for v in claim["measured"])
        holds = {None: "", True: "yes", False: "**no**"}[claim["holds"]]
        lines.append(
            f"| {claim['id']} | {claim['what']} | {claim['target']} | {values} | {holds} |"
        )
    return "\n".join(lines) + "\n"


def _bits(rows: of.Rows) -> str:
    lines = [
        "| method | seeds | final accuracy | personal k | Mbit up | Mbit down | "
        "Mbit up to 95 % of all logits' best | Mbit up to 75 % | uploads delivered | "
        "personal accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, by_seed in rows.items():
        runs = list(by_seed.values())
        k = f"{statistics.fmean(run['k'][0] for run in runs):.1f}" if "k" in runs[0] else "all"
        to = [
            _spread(
                [of.bits_to(run, of.targets(rows, seed)[title]) for seed, run in by_seed.items()],
                1e6,
            )
            for title in of.targets(rows, min(by_seed))
        ]
        measured = [r["personal_accuracy"] for r in runs if r["personal_accuracy"] is not None]
        personal = _spread(measured, 1) if measured else ""
        delivered = sum(run["statuses"].get("delivered", 0) for run in runs)
        asked = sum(sum(run["statuses"].values()) for run in runs)
        lines.append(
            f"| {row} | {len(runs)} | {_spread([of.final(r) for r in runs], 1)} | {k} | "
            f"{_spread([r['total_uplink_bits'][-1] for r in runs], 1e6)} | "
            f"{_spread([r['total_downlink_bits'][-1] for r in runs], 1e6)} | {to[0]} | {to[1]} | "
            f"{delivered} of {asked} | {personal} |"
        )
    return "\n".join(lines).replace("personal k", "mean k") + "\n"


def _accuracies(rows: of.Rows) -> str:
    lines = ["| method | accuracy by round | Mbit up | Mbit down |", "|---|---|---|---|"]
    for row, by_seed in rows.items():
        for run in by_seed.values():
            curve = " ".join(f"{value:.3f}"[1:] for value in run["accuracy"][1:])
            lines.append(
                f"| {row} | {curve} | {run['total_uplink_bits'][-1] / 1e6:.2f} | "
                f"{run['total_downlink_bits'][-1] / 1e6:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _perplexities(rows: of.Rows) -> str:
    lines = ["| method | perplexity by round | Mbit up | Mbit down |", "|---|---|---|---|"]
    for row, by_seed in rows.items():
        for run in by_seed.values():
            curve = " ".join(f"{value:.2f}" for value in run["perplexity"])
            lines.append(
                f"| {row} | {curve} | {run['total_uplink_bits'][-1] / 1e6:.2f} | "
                f"{run['total_downlink_bits'][-1] / 1e6:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _table(groups: Groups) -> list[str]:
    """Aggregation and adaptivity over skew and bandwidth: final accuracy (Mbit up in all)."""
    names = [
        f"table {alpha} {band / 1e3:.0f} kHz" for alpha in TABLE_ALPHAS for band in TABLE_BANDS
    ]
    names = [name for name in names if name in groups]
    if not names:
        return []
    heads = " | ".join(name.removeprefix("table ") for name in names)
    lines = [f"| method | {heads} |", "|---|" + "---|" * len(names)]
    present = [row for row, _ in TABLE_ROWS if any(row in groups[name] for name in names)]
    for row in present:
        cells = []
        for name in names:
            runs = list(groups[name].get(row, {}).values())
            if not runs:
                cells.append("")
                continue
            accuracy = statistics.fmean(of.final(run) for run in runs)
            bits = statistics.fmean(run["total_uplink_bits"][-1] for run in runs) / 1e6
            cells.append(f"{accuracy:.3f} ({bits:.1f})")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    title = "## One-token language: final accuracy (Mbit up in ten rounds), by skew and bandwidth\n"
    return [title, "\n".join(lines) + "\n"]


def _spread(values: Sequence[float], unit: float) -> str:
    known = [value / unit for value in values if value != of.NEVER]
    missing = len(values) - len(known)
    if not known:
        return "not reached"
    digits = 3 if unit == 1 else 2
    text = f"{statistics.median(known):.{digits}f}"
    if len(known) > 1:
        text += f" ({min(known):.{digits}f} to {max(known):.{digits}f})"
    return text + (f", {missing} not reached" if missing else "")


def _draw(groups: Groups, image: Path) -> None:
    """Accuracy against bits sent up, a line for each method, the mean of its seeds."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = [of.ALL_LOGITS[1], of.ZERO, "k = 10, mag, outage", of.ADALD, of.CODED]
    colours = ["#1c1c1c", "#e69f00", "#cc79a7", "#0072b2", "#d55e00"]
    present = [group for group in ("encoder", "one-token") if group in groups]
    figure = make_subplots(
        rows=max(len(present), 1),
        vertical_spacing=0.1,
        subplot_titles=[{"encoder": "MiniLM", "one-token": "one-token language"}[g]
                        for g in present],
    )  # fmt: skip
    for place, group in enumerate(present, 1):
        for row, colour in zip(shown, colours, strict=True):
            runs = list(groups[group].get(row, {}).values())
            if not runs:
                continue
            rounds = range(1, len(runs[0]["accuracy"]))
            figure.add_trace(
                go.Scatter(
                    x=[statistics.fmean(r["total_uplink_bits"][i] / 1e6 for r in runs)
                       for i in rounds],
                    y=[statistics.fmean(r["accuracy"][i] for r in runs) for i in rounds],
                    name=row, mode="lines+markers", line={"color": colour},
                    showlegend=place == len(present),
                ),
                row=place, col=1,
            )  # fmt: skip
    figure.update_xaxes(type="log", title="Mbit sent up")
    figure.update_yaxes(title="accuracy of the server's model", range=[0.1, 0.9])
    figure.update_layout(template="simple_white", width=1160, height=1220,
                         legend={"orientation": "h", "y": -0.06})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        photograph(page, image)
