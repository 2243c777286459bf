"""The report of one run or several: one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from airtune.report.charts import cost_curves
from airtune.report.comparison import Comparison, compare
from airtune.report.entries import entries_chart, sends_entries
from airtune.report.facts import run_facts, subtitle
from airtune.report.maps import entries_map, grant_map, snr_map, status_map
from airtune.report.noted import noted_panels
from airtune.report.page import page, plot, swatch, write_page
from airtune.report.personal import personal_panel
from airtune.report.rewards import rewards_panel
from airtune.report.statuses import meanings
from airtune.report.view import RunView, floats


def write_report(views: Sequence[RunView], path: Path, target: float | None = None) -> None:
    """Write one self-contained HTML file; the same runs give the same bytes.

    ``target`` is an accuracy, by default 95 % of the best that any run reaches. A report of the
    same name is replaced at once or not at all.
    """
    write_page(report_html(views, target), path)


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
        plot(panel, f"curve-{index}")
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
    return page(title, body)


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
        f"<tr><th>{swatch(index)}{escape(name)}</th>"
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
        f"<button type=button aria-pressed=true data-run={index}>{swatch(index)}"
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


def _by_client(view: RunView, index: int) -> str:
    """Return what each client's own model is worth, before and after."""
    panels = {"personal": personal_panel(view), "rewards": rewards_panel(view)}
    return "".join(
        plot(panel, f"{name}-{index}") for name, panel in panels.items() if panel is not None
    )


def _runs(views: Sequence[RunView], target: float | None) -> list[str]:
    parts = ["<h2>Who got through</h2>"]
    for index, view in enumerate(views):
        maps = "".join(
            [
                plot(status_map(view), f"status-{index}", wide=True),
                f"<p class='soft wide'>{escape(meanings(view.uploads))}</p>",
                plot(snr_map(view), f"snr-{index}"),
                plot(grant_map(view), f"grant-{index}"),
            ]
        )
        if sends_entries(view):
            maps += plot(entries_chart(view), f"entries-{index}")
            maps += plot(entries_map(view), f"entries-map-{index}")
        if len(views) > 1:
            maps = _by_client(view, index) + maps
        for name, panel in noted_panels(view).items():
            maps += plot(panel, f"{name}-{index}")
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
