"""The key figures of one run: what it learned and what that cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from airtune.report.statuses import losses
from airtune.report.targets import default_target, to_target
from airtune.report.units import digits, duration, known, percent, quantity
from airtune.report.view import RunView, floats

_MEASURES = {
    "reward": "Reward by own weights",
    "kl": "KL to the pretrained model",
    "distinct_2": "Distinct bigrams",
}


class Fact(NamedTuple):
    """One figure, ready to print; ``note`` puts it into proportion and may be empty."""

    label: str
    value: str
    note: str


def subtitle(view: RunView) -> str:
    """Return method, model, rounds and clients in one line."""
    said = view.summary
    parts = [str(said[key]) for key in ("method", "model") if said.get(key)]
    parts += [_count(said[key], key) for key in ("rounds", "clients") if said.get(key)]
    return " · ".join(parts)


def run_facts(view: RunView, target: float | None = None, wall: bool = True) -> list[Fact]:
    """Return what the run learned and what it cost.

    ``target`` is an accuracy, a fraction; by default 95 % of the run's best.
    """
    facts = [*_learned(view), *_cost(view), *_reached(view, target)]
    parameters = view.summary.get("trained_parameters")
    if parameters:
        payload = quantity(view.summary.get("payload_bits"), "bit")
        note = f"{payload} as one payload"
        shared = view.summary.get("shared_parameters", parameters)
        if shared < parameters:
            note = f"{shared:,} shared ({payload}), {parameters - shared:,} private"
        if view.summary.get("travels") == "logits":
            note = f"none travels; all logits would be {payload}"
        facts.append(Fact("Trained parameters", f"{parameters:,}", note))
    if wall and known(view.summary.get("wall_seconds")):
        facts.append(Fact("Wall time", duration(view.summary["wall_seconds"]), "on this computer"))
    return facts


def _learned(view: RunView) -> list[Fact]:
    said, facts = view.summary, []
    untrained = view.history[view.history["round"] == 0]
    if known(said.get("accuracy")):
        start = floats(untrained, "accuracy").max()
        best = f"best {percent(said['best_accuracy'])}" if known(said.get("best_accuracy")) else ""
        facts.append(Fact("Accuracy", _change(start, said["accuracy"], percent), best))
    if known(said.get("personal_accuracy")):
        start = floats(untrained, "personal_accuracy").max()
        change = _change(start, said["personal_accuracy"], percent)
        facts.append(Fact("Personal accuracy", change, "each client on its own data"))
    if known(said.get("personal_global_accuracy")):
        start = floats(untrained, "personal_global_accuracy").max()
        change = _change(start, said["personal_global_accuracy"], percent)
        facts.append(Fact("Personal models, all texts", change, "each client's on the test set"))
    if known(said.get("perplexity")):
        start = floats(untrained, "perplexity").max()
        facts.append(
            Fact("Perplexity", _change(start, said["perplexity"], digits), "less is better")
        )
        if known(said.get("personal_loss")):
            before = math.exp(min(floats(untrained, "personal_loss").max(), 700.0))
            change = _change(before, math.exp(min(said["personal_loss"], 700.0)), digits)
            facts.append(Fact("Personal perplexity", change, "each client on its own data"))
    for name, own in ((said.get("facts") or {}).get("judges") or {}).items():
        note = f"of {own['pairs']} held-out pairs, standard error {percent(own['error'])}"
        facts.append(Fact(f"Learned reward, {name}", percent(own["share"]), note))
    for name, value in (said.get("scores") or {}).items():
        if name.startswith("personal_") and known(value):
            change = _change(floats(untrained, name).max(), value, digits)
            note, common = "mean over clients' own models", said["scores"].get(_plain(name))
            if known(common):
                note += f"; the server's model {digits(common)}"
            facts.append(Fact(measure(name), change, note))
    return facts


def measure(name: str) -> str:
    """Return what a score of a method's own is called."""
    plain = _plain(name)
    return _MEASURES.get(plain, plain.replace("_", " ").capitalize())


def _plain(name: str) -> str:
    return name.removeprefix("personal_")


def _cost(view: RunView) -> list[Fact]:
    said = view.summary
    delivered, asked, rounds = said.get("delivered"), said.get("asked"), said.get("rounds")
    facts = []
    if known(said.get("uplink_bits")):
        each = _share(said["uplink_bits"], delivered)
        note = f"{quantity(each, 'bit')} per delivered message" if each is not None else ""
        facts.append(Fact("Uplink", quantity(said["uplink_bits"], "bit"), note))
    if known(said.get("downlink_bits")):
        # The broadcast goes out once for all who listen, so a round is what to divide by.
        each = _share(said["downlink_bits"], rounds)
        note = f"{quantity(each, 'bit')} per round, broadcast" if each is not None else ""
        facts.append(Fact("Downlink", quantity(said["downlink_bits"], "bit"), note))
    if known(said.get("seconds")):
        each = _share(said["seconds"], rounds)
        note = f"{duration(each)} per round" if each is not None else ""
        name = "Time" if said.get("measured") else "Simulated time"
        facts.append(Fact(name, duration(said["seconds"]), note))
    if known(said.get("joules")):
        each = _share(said["joules"], delivered)
        note = f"{quantity(each, 'J')} per delivered message" if each is not None else ""
        facts.append(Fact("Energy", quantity(said["joules"], "J"), note))
    if asked is not None and delivered is not None:
        note = ", ".join(f"{count:,} {name}" for name, count in losses(view.uploads).items())
        facts.append(Fact("Uploads delivered", f"{delivered:,} of {asked:,}", note))
    return facts


def _reached(view: RunView, target: float | None) -> list[Fact]:
    own = default_target([view.history])
    if not known(own):
        return []
    origin = "" if target is not None else "95 % of the best"
    target = own if target is None else target
    label = f"To reach {percent(target)}"
    reached = to_target(view.history, target)
    if reached is None:
        return [Fact(label, "not reached", origin)]
    cost = f"{quantity(reached.total_uplink_bits, 'bit')}, {duration(reached.total_seconds)}"
    when = f"round {reached.round}" if reached.round else "the untrained model"
    return [Fact(label, cost, "; ".join(part for part in (when, origin) if part))]


def _change(start: float, end: float, text: Callable[[float], str]) -> str:
    return f"{text(start)} → {text(end)}" if known(start) else text(end)


def _share(total: float, count: int | None) -> float | None:
    return total / count if count else None


def _count(number: int, plural: str) -> str:
    return f"{number} {plural if number != 1 else plural.removesuffix('s')}"
