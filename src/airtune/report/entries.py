"""How many logits of each prediction were sent, against what the channel carried."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from airtune.report.theme import figure, note
from airtune.report.units import quantity
from airtune.report.view import RunView, floats


def sends_entries(view: RunView) -> bool:
    """Return whether the run's method chose numbers of entries."""
    return bool(floats(view.uploads, "k").notna().any())


def entries_chart(view: RunView) -> go.Figure:
    """Return k over SNR, a point for each upload; hover for client, round and size."""
    title = "Entries of each prediction (k) over SNR"
    snr = floats(view.uploads, "snr_db").replace([np.inf, -np.inf], np.nan)
    rows = view.uploads.assign(snr_db=snr, k=floats(view.uploads, "k"))
    rows = rows[rows["snr_db"].notna() & rows["k"].notna()]
    if rows.empty:
        return note(title, "No SNR: the cell is ideal, or links were measured as rates.")
    panel = figure(title, 320)
    panel.add_trace(
        go.Scatter(
            x=rows["snr_db"].to_numpy(),
            y=rows["k"].to_numpy(),
            mode="markers",
            marker={
                "size": 7,
                "opacity": 0.75,
                "color": rows["round"].to_numpy(),
                "colorscale": "Viridis",
                "colorbar": {"title": {"text": "round"}, "thickness": 10, "outlinewidth": 0},
            },
            customdata=[_hover(row) for row in rows.to_dict("records")],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    panel.update_xaxes(title="SNR (dB)")
    panel.update_yaxes(title="k", rangemode="tozero")
    return panel


def _hover(row: Mapping[Hashable, Any]) -> str:
    text = f"round {row['round']}, client {row['client']}: k = {row['k']:.0f}"
    text += f"<br>{quantity(row['bits'], 'bit')} at {row['snr_db']:.1f} dB"
    texts = row.get("texts")
    if isinstance(texts, int | float) and texts == texts:
        text += f", about {texts:.0f} texts"
    retreat = row.get("retreat")
    return f"{text}<br>{retreat}" if isinstance(retreat, str) else text
