"""From rounds in a cell to claims and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.claims import Claim, Claims, table
from benchmarks.pwff.systems import FULL, PFIT, PFIT_LORA

Row = dict[str, Any]
# The two ways to charge computing: key, words.
WAYS = {"compute": "4 P a token", "compute_early": "back to the first adapted layer"}
# A message's part of the whole model that the specification asks for, at most.
LIMITS = {"PFTT": 0.01, PFIT: 0.12, PFIT_LORA: 0.01}


def delay(row: Row, way: str = "compute") -> float:
    """Seconds of a mean round."""
    return float(_on_air(row) + row[f"{way}_s"])


def energy(row: Row, way: str = "compute") -> float:
    """Joules of all clients in a mean round."""
    return float(row["radio_j"] + row[f"{way}_j"])


def claims(rows: Sequence[Row], command: str) -> list[Claim]:
    """Claim 7: orders, parts of delay and energy, and the bound on what computing can save."""
    found = Claims(command, digits=5)
    add = found.add
    for model in _kept(rows, "model"):
        own = [row for row in rows if row["model"] == model]
        titles, snrs = _kept(own, "system"), _kept(own, "snr_db")
        at = {(row["system"], row["snr_db"]): row for row in own}
        where, low = ", ".join(f"{snr:g}" for snr in snrs) + " dB", snrs[0]
        tuned = [title for title in titles if title != FULL]
        orders = [
            len({_order([(figure(at[t, snr], way), t) for t in titles]) for snr in snrs})
            for figure in (delay, energy)
            for way in WAYS
        ]
        add(f"7-order-{model}", f"{model}: how many orders of the systems there are at {where}, by "
            f"delay and by joules, computing charged {' and '.join(WAYS.values())}", "1 each",
            orders, max(orders) == 1)  # fmt: skip
        for title in (each for each in tuned if each in LIMITS):
            part = at[title, low]["bits"] / at[FULL, low]["bits"]
            add(f"7-bits-{model}-{title}", f"{model}: message of {title} / {FULL}",
                f"<= {LIMITS[title]}", [part], part <= LIMITS[title])  # fmt: skip
        saved = [min(_radio_part(at[t, s], at[FULL, s]) for t in tuned) for s in snrs]
        add(f"7-radio-{model}", f"{model}: part of the joules saved against {FULL} that the radio "
            f"saves, the least of the systems, at {where}, 4 P a token", "> 0.5: mainly the radio",
            saved, min(saved) > 0.5)  # fmt: skip
        for way, words in WAYS.items():
            parts = [at[t, low][f"{way}_s"] / at[FULL, low][f"{way}_s"] for t in tuned]
            bound = way == "compute"
            target = ">= 2/3: at most one third is saved" if bound else "as measured"
            add(f"7-{way}-{model}", f"{model}: computing / {FULL}'s, charged {words}: "
                f"{', '.join(tuned)}", target, parts,
                min(parts) >= 2 / 3 - 1e-5 if bound else None)  # fmt: skip
        if "both shared" in titles:
            bits = at["PFTT", low]["bits"] / at["both shared", low]["bits"]
            values = [_on_air(at["PFTT", s]) / _on_air(at["both shared", s]) for s in snrs]
            add(f"7-ratio-{model}", f"{model}: seconds on the air, PFTT / both shared, at {where}",
                f"that of the bits, {bits:.4f}", values,
                max(abs(value / bits - 1) for value in values) < 0.01)  # fmt: skip
    return found.found


def page(results: dict[str, Any]) -> str:
    """Return RADIO.md: claims and tables."""
    parts = ["# Delay and energy in a cell\n", section(results), "\n## Claims\n"]
    parts += table(results["claims"])
    return "\n".join(parts) + "\n"


def section(results: dict[str, Any]) -> str:
    """Return the tables, one for each model, and what they rest on."""
    setting, rows = results["setting"], results["rows"]
    device = setting["device"]
    speed = device["peak_flops"] * device["utilisation"] / 1e12
    distances = ", ".join(f"{d} m for {snr}" for snr, d in setting["distance_m"].items())
    parts = [
        f"Measured on {results['machine']} by `{results['command']}`; this text is written by it, "
        f"raw figures are in `radio.json`. {setting['clients']} clients, all asked in each of "
        f"{setting['rounds']} rounds, {setting['cell']['bandwidth_hz'] / 1e6:g} MHz, Rayleigh "
        "fading, a band divided for the least delay, the broadcast at the rate of the worst "
        f"listener. All stand at one distance ({distances} over a tenth of the band). Nothing is "
        "trained: messages of MiniLM and stories260k are encoded by the systems themselves, those "
        "of GPT-2 small are 32 bit for each number, counted on a model without memory. A round of "
        "texts trains on 800 tokens; one of answers samples 7200, has the reference read them, "
        f"and trains on them once; a device computes {speed:g} TFLOP/s at {device['power_w']:g} W. "
        "Delay is down + computing + up of the last client; joules are those of all clients. A "
        "link keeps its gain for a whole message, however long that takes. Within a model all "
        "systems meet the same links and, at 4 P, compute the same, so their order is that of "
        "their bits.\n",
        "Computing is charged in two ways: 4 P operations a token for whatever trains, against 6 P "
        "of the whole model, so that it can save **at most one third**; or with the way back to "
        "the first adapted layer only (`cell.backward: adapted`), which saves more where only the "
        "last layers are adapted. Sampling and the reference cost 2 P a token under both.\n",
        f"Neither counts attention's own products. A window of {setting['window']} tokens with "
        f"tokens 0, {setting['stride']}, {2 * setting['stride']} ... would keep "
        + ", ".join(f"{100 * kept:.0f} % at {n}" for n, kept in setting["entries_kept"].items())
        + " tokens of the causal entries: counted, not timed.\n",
    ]
    for model in _kept(rows, "model"):
        parts.append(_table(model, [row for row in rows if row["model"] == model]))
    return "\n".join(parts)


def _table(model: str, rows: Sequence[Row]) -> str:
    snrs = _kept(rows, "snr_db")
    at = ", ".join(f"{snr:g}" for snr in snrs)
    absent = ", ".join(f"{100 * row['absent']:.1f}" for row in rows[: len(snrs)])
    lines = [
        f"**{model}** ({rows[0]['model_parameters'] / 1e6:.4g} M parameters; at {at} dB {absent} % "
        "of the clients are in outage)\n",
        f"| system | kbit each way | on the air, s at {at} dB | computing, s: 4 P (early end) | "
        f"on the air, J at {at} dB | computing of all, J: 4 P (early end) | delay / {FULL}'s |",
        "|" + "---|" * 7,
    ]
    whole = [row for row in rows if row["system"] == FULL]
    for title in _kept(rows, "system"):
        own = [row for row in rows if row["system"] == title]
        cells = [
            title,
            f"{own[0]['bits'] / 1e3:,.0f}",
            _each(own, _on_air),
            f"{own[0]['compute_s']:.3g} ({own[0]['compute_early_s']:.3g})",
            _each(own, lambda row: row["radio_j"]),
            f"{own[-1]['compute_j']:.3g} ({own[-1]['compute_early_j']:.3g})",
            ", ".join(f"{delay(a) / delay(b):.2g}" for a, b in zip(own, whole, strict=True)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _each(rows: Sequence[Row], figure: Callable[[Row], float]) -> str:
    return ", ".join(f"{figure(row):.3g}" for row in rows)


def _on_air(row: Row) -> float:
    return float(row["down_s"] + row["up_s"])


def _radio_part(row: Row, whole: Row) -> float:
    return float((whole["radio_j"] - row["radio_j"]) / (energy(whole) - energy(row)))


def _order(figures: list[tuple[float, str]]) -> tuple[str, ...]:
    """Return titles by figure; those that differ by less than 1 in 10^5 are one, by name."""
    ranks = sorted(figures)
    groups: list[tuple[float, list[str]]] = []
    for value, title in ranks:
        if groups and value <= groups[-1][0] * (1 + 1e-5):
            groups[-1][1].append(title)
        else:
            groups.append((value, [title]))
    return tuple(" = ".join(sorted(titles)) for _, titles in groups)


def _kept(rows: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))
