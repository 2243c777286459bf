"""What the offline choice of a rank prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from airtune.report.units import digits, duration, percent, quantity


def rank_table(found: Mapping[str, Any]) -> Table:
    """Return one row per rank with what it was judged by; the choice is bold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title_justify="left", padding=(0, 1))
    table.title = Text(f"Rank under {duration(found['latency_s'])} for computing and sending")
    is_pilot = found["by"] == "pilot"
    own = ("Loss", "Accuracy", "Uplink", "Latency") if is_pilot else ("Phi", "E_sp", "Cov", "U")
    slices = ["Slices"] if "slices" in found["ranks"][0] else []
    for header in ("Rank", *slices, "Kept", *own):
        table.add_column(header, justify="right", no_wrap=True)
    for row in found["ranks"]:
        cells = [str(row["rank"]), *(digits(row["slices"]) for _ in slices), percent(row["kept"])]
        if is_pilot:
            cells += [f"{row['loss']:.4f}", percent(row["accuracy"])]
            cells += [quantity(row["uplink_bits"], "bit"), duration(row["mean_latency_s"])]
        else:
            cells += [f"{row[key]:.3f}" for key in ("phi", "dropped", "covariance")]
            cells.append(f"{row['u']:.4g}")
        table.add_row(*cells, style="bold" if row["rank"] == found["chosen"] else None)
    return table


def rank_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what the figures rest on, and how to use the choice."""
    said = [f"Proxy data: {found['proxy']}."]
    if found["by"] == "surrogate":
        c = found["weights"]
        said.append(
            "U = " + " + ".join(f"{c[key]:.3g} {name}" for key, name in _TERMS) + f": {_how(found)}"
        )
    else:
        said.append(
            f"Chosen by held-out loss after {found['rounds']} rounds under the budget; Latency is "
            "the pilot's mean, which nears the budget in longer runs."
        )
    able = min(row["clients"] for row in found["ranks"])
    if able < found["clients"]:
        said.append(
            f"{able} of {found['clients']} clients can meet the budget (at the rank where fewest "
            "can); the others are left out."
        )
    if found["by"] == "pilot":
        start, best = (min(row[key] for row in found["ranks"]) for key in ("start_loss", "loss"))
        if best > 0.99 * start:
            said.append(
                f"The pilots hardly learned: loss {start:.4f} before, {best:.4f} after. "
                "Raise --rounds before you trust the choice."
            )
    rank, tried = found["chosen"], [row["rank"] for row in found["ranks"]]
    if rank in (tried[0], tried[-1]):
        end = "smallest" if rank == tried[0] else "largest"
        said.append(f"The curve has no minimum inside --ranks: {rank} is the {end} of them.")
    said.append(
        f"Rank {rank} is the choice; use it by --set adapter.rank={rank} "
        f"--set adapter.alpha={found['alpha']}"
    )
    return said


_TERMS = (("phi", "Phi"), ("dropped", "E_sp"), ("covariance", "Cov"))


def _how(found: Mapping[str, Any]) -> str:
    if found["weighting"] == "fitted":
        return "weights by nonnegative least squares on the pilots' loss drops."
    return (
        "each term is 1 at rank 8, or at the middle rank, as the pilots' loss drops determine no "
        "weights."
    )
