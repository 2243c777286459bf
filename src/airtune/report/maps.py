"""Client by round: how well each was heard, what it was granted, what became of its upload."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from airtune.report.statuses import STATUSES
from airtune.report.theme import NOTHING, figure, note
from airtune.report.units import Unit, duration, known, quantity, rung
from airtune.report.view import RunView, floats

# Beyond this many cells in a row or column a letter no longer fits.
_LETTERS_ACROSS, _LETTERS_DOWN = 60, 40


def status_map(view: RunView) -> go.Figure:
    """Return what became of each upload; hover for the reason, the bits and the seconds."""
    title = "What became of each upload"
    if view.uploads.empty:
        return note(title, "Nobody was asked to upload.")
    present = [status for status in STATUSES if (view.uploads["status"] == status.name).any()]
    codes = {status.name: float(code) for code, status in enumerate(present)}
    letters = {status.name: status.letter for status in present}
    cells = _grid(view, view.uploads["status"].map(codes))
    clients, rounds = cells.shape
    small = rounds <= _LETTERS_ACROSS and clients <= _LETTERS_DOWN
    panel = _frame(title, cells)
    panel.add_trace(
        go.Heatmap(
            x=cells.columns.to_numpy(),
            y=cells.index.to_numpy(),
            z=cells.to_numpy(dtype=np.float32),
            text=_grid(view, view.uploads["status"].map(letters)).fillna("") if small else None,
            texttemplate="%{text}" if small else None,
            textfont={"size": 10},
            customdata=_grid(view, pd.Series(_hover(view.uploads), view.uploads.index)).fillna(""),
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=_steps([status.colour for status in present]),
            zmin=-0.5,
            zmax=len(present) - 0.5,
            showscale=False,
            **_gaps(cells),
        )
    )
    for status in present:
        label = f"{status.letter} {status.name}".strip() if small else status.name
        # A heatmap has no legend of its own; an empty trace lends it an entry.
        panel.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers", name=label,
                marker={"symbol": "square", "size": 12, "color": status.colour},
            )
        )  # fmt: skip
    panel.update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom",
                "itemclick": False, "itemdoubleclick": False},
        height=panel.layout.height + 30,
    )  # fmt: skip
    return panel


def snr_map(view: RunView) -> go.Figure:
    """Return the SNR in dB over each granted band."""
    title = "SNR over the granted band (dB)"
    values = floats(view.uploads, "snr_db").replace([np.inf, -np.inf], np.nan)
    if not floats(view.uploads, "bits").any():
        return note(title, "Nobody transmitted, so there is no SNR.")
    if values.isna().all():
        return note(title, "No SNR: the cell is ideal, or links were measured as rates.")
    return measure_map(view, title, values, "Cividis", " dB")


def grant_map(view: RunView) -> go.Figure:
    """Return the bits granted to each upload or, where nobody's are limited, the bandwidth."""
    bits = floats(view.uploads, "granted_bits").replace([np.inf, -np.inf], np.nan)
    if bits.notna().any():
        return _scaled_map(view, "Granted payload", bits, "bit")
    band = floats(view.uploads, "bandwidth_hz").replace([0.0, np.inf, -np.inf], np.nan)
    if band.notna().any():
        return _scaled_map(view, "Granted bandwidth", band, "Hz")
    return note("Granted bandwidth", "Neither bandwidth nor bits were limited.")


def entries_map(view: RunView) -> go.Figure:
    """Return how many entries of each prediction each upload had."""
    title = "Entries of each prediction (k)"
    return measure_map(view, title, floats(view.uploads, "k"), "Viridis", "")


def _scaled_map(view: RunView, name: str, values: pd.Series[float], unit: Unit) -> go.Figure:
    factor, symbol = rung(float(values.max()), unit)
    return measure_map(view, f"{name} ({symbol})", values / factor, "Viridis", f" {symbol}")


def measure_map(
    view: RunView, title: str, values: pd.Series[float], colours: str, unit: str
) -> go.Figure:
    """Return ``values``, one per upload, by client and round."""
    cells = _grid(view, values)
    panel = _frame(title, cells)
    panel.add_trace(
        go.Heatmap(
            x=cells.columns.to_numpy(),
            y=cells.index.to_numpy(),
            z=cells.to_numpy(dtype=np.float32),
            colorscale=colours,
            colorbar={"thickness": 10, "outlinewidth": 0, "xpad": 4},
            hovertemplate=f"round %{{x}}, client %{{y}}: %{{z:.3~r}}{unit}<extra></extra>",
            **_gaps(cells),
        )
    )
    return panel


def _grid(view: RunView, values: pd.Series) -> pd.DataFrame:
    """Return ``values``, one per upload, as [clients, rounds]; NaN where nobody was asked."""
    places = view.uploads[["client", "round"]].assign(value=values)
    # Should a client upload twice in a round, what happened last is what counts.
    cells = places.drop_duplicates(["client", "round"], keep="last")
    rounds = range(1, int(view.history["round"].max()) + 1)
    return cells.pivot(index="client", columns="round", values="value").reindex(columns=rounds)


def _frame(title: str, cells: pd.DataFrame) -> go.Figure:
    clients, rounds = cells.shape
    panel = figure(title, 120 + min(max(18 * clients, 60), 560))
    panel.update_layout(plot_bgcolor=NOTHING)
    panel.update_xaxes(title="round", showgrid=False, **_whole(rounds))
    panel.update_yaxes(title="client", showgrid=False, autorange="reversed", **_whole(clients))
    return panel


def _whole(count: int) -> dict[str, float]:
    # Few cells would otherwise get ticks at fractions of a round.
    return {"dtick": 1} if count <= 10 else {}


def _gaps(cells: pd.DataFrame) -> dict[str, int]:
    clients, rounds = cells.shape
    return {"xgap": int(rounds <= _LETTERS_ACROSS), "ygap": int(clients <= _LETTERS_DOWN)}


def _steps(colours: list[str]) -> list[tuple[float, str]]:
    """Return a colour scale that jumps from one colour to the next instead of blending."""
    edges = np.linspace(0.0, 1.0, len(colours) + 1)
    return [
        (float(edge), colour)
        for low, high, colour in zip(edges, edges[1:], colours, strict=False)
        for edge in (low, high)
    ]


def _hover(uploads: pd.DataFrame) -> list[str]:
    texts = []
    for row in uploads.to_dict("records"):
        reason = row.get("reason")
        why = f": {escape(str(reason), quote=False)}" if isinstance(reason, str) and reason else ""
        granted = row.get("granted_bits")
        limit = f" of {quantity(granted, 'bit')} granted" if known(granted) else ""
        text = f"round {row['round']}, client {row['client']}<br>{row['status']}{why}"
        if row["bits"]:
            text += (
                f"<br>{quantity(row['bits'], 'bit')}{limit}<br>{duration(row['compute_seconds'])} "
                f"computing, {duration(row['seconds'])} on the air"
            )
        texts.append(text)
    return texts
