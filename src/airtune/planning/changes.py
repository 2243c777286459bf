"""What could be changed in an experiment to make it cheaper, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from airtune.errors import UserError
from airtune.experiment import Experiment

Change = tuple[str, list[str], Experiment]  # in words, settings as --set takes them, with them


def changes(experiment: Experiment) -> Iterator[Change]:
    """Yield changes that the experiment allows: half the rank, the next smaller number of bits ...

    What they do to what is learned is not known before a run.
    """
    for said, settings in _possible(experiment):
        try:
            yield said, settings, experiment.changed(settings)
        except UserError:
            continue  # a method's own options may rule it out


def _possible(experiment: Experiment) -> Iterator[tuple[str, list[str]]]:
    adapter, cell, train = experiment.adapter, experiment.cell, experiment.train
    if adapter.has_lora and adapter.rank > 1:
        rank = adapter.rank // 2
        scale = adapter.alpha * rank / adapter.rank
        yield "half the rank", [f"adapter.rank={rank}", f"adapter.alpha={scale:g}"]
    if adapter.bottleneck is not None and adapter.bottleneck > 1:
        yield "half the bottleneck", [f"adapter.bottleneck={adapter.bottleneck // 2}"]
    for key in ("value_type", "value_bits"):
        fewer = _fewer(experiment.method, key)
        if fewer is not None:
            yield "fewer bits per value", [f"method.{key}={fewer}"]
    if not cell.ideal:
        yield "twice the bandwidth", [f"cell.bandwidth_hz={2 * cell.bandwidth_hz:g}"]
    if cell.deadline_s is not None and not cell.ideal:
        yield "twice the deadline", [f"cell.deadline_s={2 * cell.deadline_s:g}"]
    asked = experiment.clients.asked
    if asked > 1:
        yield "half the clients per round", [f"clients.per_round={asked // 2}"]
    if train.local_steps > 1:
        yield "half the local steps", [f"train.local_steps={train.local_steps // 2}"]


def _fewer(method: Any, key: str) -> str | int | None:
    """Return the next smaller choice of a method's option, None if there is none."""
    if key not in type(method).model_fields:
        return None
    if key == "value_type":
        return "float16" if method.value_type == "float32" else None
    choices = type(method).model_fields[key].annotation
    if get_origin(choices) is not Literal:
        return None
    below = [bits for bits in get_args(choices) if bits < method.value_bits]
    return max(below, default=None)
