"""The report: one HTML file that needs nothing else, today or in ten years."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from airtune.report.charts import cost_curves
from airtune.report.comparison import Comparison, compare
from airtune.report.entries import entries_chart, sends_entries
from airtune.report.facts import run_facts, subtitle
from airtune.report.maps import entries_map, grant_map, snr_map, status_map
from airtune.report.noted import noted_panels
from airtune.report.personal import personal_panel
from airtune.report.rewards import rewards_panel
from airtune.report.statuses import meanings
from airtune.report.style import CSS, SCRIPT
from airtune.report.theme import run_colour
from airtune.report.view import RunView, floats

# Tells the browser to load nothing from anywhere, so that offline is not a matter of trust.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_PLOT_OPTIONS = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg"},
}


def write_report(views: Sequence[RunView], path: Path, target: float | None = None) -> None:
    """Write one self-contained HTML file; the same runs give the same bytes.

    ``target`` is an accuracy, by default 95 % of the best that any run reaches. A report of the
    same name is replaced at once or not at all.
    """
    text = report_html(views, target)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def report_html(views: Sequence[RunView], target: float | None = None) -> str:
    """Return the page that ``write_report`` writes."""
    comparison = compare(views, target)
    if len(views) == 1:
        title, below = views[0].name, subtitle(views[0])
        figures = _cards(views[0], target)
    else:
        title, below = f"Comparison of {len(views)} runs", comparison.title
        figures = _table(comparison)
    curves = [
        _plot(panel, f"curve-{index}")
        for index, panel in enumerate(cost_curves(views, comparison.target))
    ]
    body = [
        f"<h1>{escape(title)}</h1><p class=soft>{escape(below)}</p>{figures}",
        "<h2>What was learned, against what it cost</h2>",
        _key(views),
        f"<div class='grid three curves'>{''.join(curves)}</div>"
        if curves
        else "<p>Not evaluated.</p>",
        f"<div class='grid two'>{_by_client(views[0], 0)}</div>" if len(views) == 1 else "",
        *_runs(views, target if len(views) == 1 else comparison.target),
        *(_configuration(view) for view in views),
    ]
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - airtune</title><style>{CSS}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n<footer>airtune. Bits are those that crossed the air, 1 Mbit = 10<sup>6</sup> bit; "
        "seconds and joules are simulated, training on the device included.</footer>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def _cards(view: RunView, target: float | None) -> str:
    cards = "".join(
        f"<div><dt>{escape(label)}</dt><dd class=value>{escape(value)}</dd>"
        f"<dd class=note>{escape(note)}</dd></div>"
        for label, value, note in run_facts(view, target)
    )
    return f"<dl class=cards>{cards}</dl>"


def _table(comparison: Comparison) -> str:
    head = "".join(
        f"<th>{escape(column.header)}<br><span class=unit>{escape(column.unit)}</span></th>"
        for column in comparison.columns
    )
    body = "".join(
        f"<tr><th>{_swatch(index)}{escape(name)}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for index, (name, row) in enumerate(comparison.rows())
    )
    return (
        f"<div class=scroll><table><thead><tr><th>Run</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _key(views: Sequence[RunView]) -> str:
    entries = [
        f"<button type=button aria-pressed=true data-run={index}>{_swatch(index)}"
        f"{escape(view.name)}</button>"
        for index, view in enumerate(views)
        if len(views) > 1
    ]
    if any(floats(view.history, "personal_accuracy").notna().any() for view in views):
        entries.append(
            "<span><span class='swatch dashed'></span>dashed: personal accuracy, each "
            "client on its own data</span>"
        )
    return f"<div class=key>{''.join(entries)}</div>" if entries else ""


def _swatch(index: int) -> str:
    return f"<span class=swatch style='border-color:{run_colour(index)}'></span>"


def _by_client(view: RunView, index: int) -> str:
    """Return what each client's own model is worth, before and after."""
    panels = {"personal": personal_panel(view), "rewards": rewards_panel(view)}
    return "".join(
        _plot(panel, f"{name}-{index}") for name, panel in panels.items() if panel is not None
    )


def _runs(views: Sequence[RunView], target: float | None) -> list[str]:
    parts = ["<h2>Who got through</h2>"]
    for index, view in enumerate(views):
        maps = "".join(
            [
                _plot(status_map(view), f"status-{index}", wide=True),
                f"<p class='soft wide'>{escape(meanings(view.uploads))}</p>",
                _plot(snr_map(view), f"snr-{index}"),
                _plot(grant_map(view), f"grant-{index}"),
            ]
        )
        if sends_entries(view):
            maps += _plot(entries_chart(view), f"entries-{index}")
            maps += _plot(entries_map(view), f"entries-map-{index}")
        if len(views) > 1:
            maps = _by_client(view, index) + maps
        for name, panel in noted_panels(view).items():
            maps += _plot(panel, f"{name}-{index}")
        maps = f"<div class='grid two'>{maps}</div>"
        if len(views) == 1:
            parts.append(maps)
        else:
            parts.append(
                f"<details{' open' if index == 0 else ''}><summary>{escape(view.name)}</summary>"
                f"<p class=soft>{escape(subtitle(view))}</p>{_cards(view, target)}{maps}</details>"
            )
    return parts


def _configuration(view: RunView) -> str:
    return (
        f"<details><summary>Configuration of {escape(view.name)}</summary>"
        f"<pre>{escape(view.experiment)}</pre></details>"
    )


def _plot(panel: go.Figure, name: str, wide: bool = False) -> str:
    # Plotly would else make up a new id each time, and no two reports would be equal.
    plot = to_html(
        panel,
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        div_id=name,
        config=_PLOT_OPTIONS,
        default_height=f"{panel.layout.height}px",
    )
    return f"<div class='panel{' wide' if wide else ''}'>{plot}</div>"
