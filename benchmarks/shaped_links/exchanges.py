"""From a run's ledger and the interfaces' counters to one row for each exchange with a device."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def exchanges(seen: dict[str, Any]) -> dict[str, Any]:
    """Return what was seen of a run: exchanges, and the seconds of idle ones.

    ``predicted_s`` of an upload is its size over the rate that the round was planned with,
    ``upload_s`` what the device measured, ``wall_s`` from order to arrival, ``engine_s`` what is
    left of it besides both ways and computing. ``up_bytes`` and ``down_bytes`` crossed the
    interface in the round, idle exchange and polls included.
    """
    rows, counts = seen["rows"], seen["counts"]
    links = {(r["way"], r["round"], r["client"]): r for r in rows if r["row"] == "link"}
    sizes = {r["round"]: r["bits"] // 8 for r in rows if r["row"] == "broadcast"}
    found = []
    for row in (each for each in rows if each["row"] == "upload"):
        round, client = row["round"], row["client"]
        up, down = links.get(("up", round, client)), links.get(("down", round, client))
        wall = row["compute_seconds"] + row["seconds"]
        before, after = counts[round - 1][client], counts[round][client]
        known = up is not None and down is not None
        engine = wall - row["compute_seconds"] - up["seconds"] - down["seconds"] if known else None
        rate = row["rate_bps"]
        found.append(
            {
                "round": round,
                "client": client,
                "status": row["status"],
                "bytes": row["bits"] // 8,
                "broadcast_bytes": sizes.get(round, 0),
                "rate_mbit": _rounded(rate and rate / 1e6),
                "predicted_s": _rounded(row["bits"] / rate if rate else None),
                "upload_s": _rounded(up and up["seconds"]),
                "measured_mbit": _rounded(up and up["bits"] / up["seconds"] / 1e6),
                "down_s": _rounded(down and down["seconds"]),
                "compute_s": _rounded(row["compute_seconds"]),
                "wall_s": _rounded(wall),
                "engine_s": _rounded(engine),
                "up_bytes": after["up"] - before["up"],
                "down_bytes": after["down"] - before["down"],
            }
        )
    return {
        "exchanges": found,
        "idle_s": [[_rounded(each) for each in times] for times in seen["idle_s"]],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
