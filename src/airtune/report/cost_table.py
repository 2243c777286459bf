"""What a plan of costs prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from airtune.federation.costs import Costs, Priced, Spread
from airtune.report.units import Unit, duration, percent, quantity

_ENOUGH = 0.95  # of what is asked for should arrive
_LITTLE = 0.005  # relative; less of a change is none


def cost_table(name: str, costs: Costs, rounds: int, deadline_s: float | None) -> Table:
    """Return what an experiment of so many rounds will cost."""
    table = _table()
    table.title = Text.assemble((name, "bold"), (f"\n{_basis(costs.rounds, rounds)}", "dim"))
    for header in ("", "median", "95 %"):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    table.add_column("", style="dim", overflow="fold")
    share = costs.compute_j.mean / costs.device_j.mean if costs.device_j.mean else 0.0
    ways: tuple[tuple[str, Spread, Unit, str], ...] = (
        ("upload of a client", costs.upload_bits, "bit", ""),
        ("uplink of a round", costs.uplink_bits, "bit", "all clients together"),
        ("broadcast", costs.downlink_bits, "bit", "once a round"),
        ("airtime of a round", costs.airtime_s, "s", "broadcast, and the longest upload"),
        ("computing of a client", costs.compute_s, "s", ""),
        ("a round", costs.round_s, "s", "with computing"),
        ("energy of a device", costs.device_j, "J", f"a round; computing is {percent(share)}"),
    )
    for label, spread, unit, note in ways:
        table.add_row(label, *_both(spread, unit), note)
    whole = [quantity(rounds * each, "J") for each in (costs.client_j.median, costs.client_j.high)]
    table.add_row("", *whole, f"in {rounds} rounds, over devices")
    seconds = rounds * costs.round_s.mean
    table.add_row(f"{rounds} rounds", duration(seconds), "", f"{seconds / 3600.0:.2g} hours")
    limit = "" if deadline_s is None else f" by the deadline of {duration(deadline_s)}"
    table.add_row(f"arrive{limit}", percent(costs.arrived), "", _failures(costs))
    return table


def cost_sentences(costs: Costs, deadline_s: float | None, sizes_vary: bool) -> list[str]:
    """Return who can take part, what a deadline would do, and what the figures do not know."""
    clients = costs.always + costs.sometimes + costs.never
    said = [
        f"Of {clients} clients asked, {costs.always} get through in every round, "
        f"{costs.sometimes} in some, {costs.never} in none."
    ]
    if costs.reasons:
        reason, count = next(iter(costs.reasons.items()))
        said.append(f"Most often ({count} times) a client is left out for this: {reason}.")
    if deadline_s is None and costs.finish_s.high > 0.0:
        said.append(
            f"A deadline of {duration(costs.finish_s.high)} would be met by 95 % of the uploads "
            "(cell.deadline_s)."
        )
    if sizes_vary:
        said.append(
            "Messages of this method are as long as what is learned makes them, and here nothing "
            "is: --pilot 2 trains two rounds of each setting and counts theirs."
        )
    return said


def changes_table(base: Costs, changed: Sequence[Priced]) -> Table:
    """Return what single changes do to a round, the largest saving of time first.

    Where too little arrives, what lets most arrive comes first.
    """
    table = _table()
    table.title = Text(f"What to change first: each alone, over {base.rounds} rounds")
    table.add_column("change", overflow="fold")
    table.add_column("setting", no_wrap=True)
    for header in ("upload", "airtime", "round", "energy", "arrive"):
        table.add_column(header, justify="right", no_wrap=True)
    found = [(each, each.costs) for each in changed if each.costs is not None]

    def rank(pair: tuple[Priced, Costs]) -> tuple[float, float]:
        arrived = 0.0 if base.arrived >= _ENOUGH else pair[1].arrived
        return -arrived, pair[1].round_s.mean

    for each, costs in sorted(found, key=rank):
        table.add_row(
            each.said,
            "\n".join(f"{key}={value}" for key, value in each.settings.items()),
            *(
                _difference(getattr(base, name).mean, getattr(costs, name).mean)
                for name in ("upload_bits", "airtime_s", "round_s", "device_j")
            ),
            f"{100.0 * costs.arrived:.0f} %",
        )
    return table


def sweep_table(points: Sequence[Priced]) -> Table:
    """Return one row per setting."""
    table = _table()
    found = [each for each in points if each.costs is not None]
    fewest = min(each.costs.rounds for each in found if each.costs is not None)
    table.title = Text(f"Medians {_basis(fewest, max(each.rounds for each in found))}")
    short = [key.split(".")[-1] for key in points[0].settings]
    for key, name in zip(points[0].settings, short, strict=True):
        # As few characters as tell the keys apart: the figures need the room.
        head = name if short.count(name) == 1 else key
        table.add_column(head, justify="right", min_width=min(len(head), 12), overflow="fold")
    for header in ("upload", "airtime", "95 %", "round", "energy", "arrive", "run"):
        table.add_column(header, justify="right", no_wrap=True)
    for each in points:
        if each.costs is None:
            table.add_row(*each.settings.values(), "impossible")
            continue
        costs = each.costs
        table.add_row(
            *each.settings.values(),
            quantity(costs.upload_bits.median, "bit"),
            *_both(costs.airtime_s, "s"),
            duration(costs.round_s.median),
            quantity(costs.device_j.median, "J"),
            f"{100.0 * costs.arrived:.0f} %",
            duration(each.run_seconds),
        )
    return table


def sweep_sentences(points: Sequence[Priced]) -> list[str]:
    """Return why some settings have no costs, each reason once."""
    reasons: dict[str, list[str]] = {}
    for each in points:
        if each.costs is None:
            setting = " ".join(f"{key}={value}" for key, value in each.settings.items())
            reasons.setdefault(each.problem, []).append(setting)
    return [f"{', '.join(settings)}: {problem}" for problem, settings in reasons.items()]


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title_justify="left",
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )


def _basis(seen: int, rounds: int) -> str:
    return f"of {rounds} rounds" if seen >= rounds else f"of the first {seen} of {rounds} rounds"


def _both(spread: Spread, unit: Unit) -> tuple[str, str]:
    if unit == "s":
        return duration(spread.median), duration(spread.high)
    return quantity(spread.median, unit), quantity(spread.high, unit)


def _failures(costs: Costs) -> str:
    total = sum(costs.failures.values())
    if not total:
        return "of what is asked for"
    asked = total / (1.0 - costs.arrived)
    return ", ".join(f"{name} {percent(count / asked)}" for name, count in costs.failures.items())


def _difference(before: float, after: float) -> str:
    if not before > 0.0 or not after >= 0.0:
        return "–"  # noqa: RUF001 (as in report.units)
    relative = after / before - 1.0
    return "same" if abs(relative) < _LITTLE else f"{100.0 * relative:+.0f} %"
