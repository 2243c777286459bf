"""What an experiment will cost, what would make it cheaper, and what other settings cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.costs import Costs, Priced
from airtune.methods.registry import find
from airtune.planning.changes import changes
from airtune.planning.rehearsal import rehearse, rounds_of

_COMPARED = 200  # uploads over which settings are compared
_MOST_POINTS = 100  # of a sweep

OnStep = Callable[[str], None]
Grid = dict[str, list[str]]


@dataclass(frozen=True)
class CostPlan:
    """An experiment's costs, those of its first rounds, and these with single changes.

    ``sizes_vary`` says that its messages are as long as what was learned makes them.
    """

    costs: Costs
    first: Costs
    changed: list[Priced]
    sizes_vary: bool


def plan_costs(experiment: Experiment, pilot: int | None, on_step: OnStep) -> CostPlan:
    """Rehearse an experiment, then its cheaper variants; ``on_step`` is told what comes next.

    So many rounds of each are really trained with ``pilot``.
    """
    on_step("the experiment as it is")
    rows = rehearse(experiment, pilot or rounds_of(experiment), bool(pilot))
    count = pilot or rounds_of(experiment, _COMPARED)
    first = Costs.of([row for row in rows if row.round <= count])
    changed = []
    for said, settings, other in changes(experiment):
        on_step(said)
        by_key = dict(each.split("=", 1) for each in settings)
        changed.append(_priced(by_key, other, count, bool(pilot), said))
    vary = find(experiment.method.name).sizes_vary
    return CostPlan(Costs.of(rows), first, changed, vary and not pilot)


def parse_grid(texts: Iterable[str]) -> Grid:
    """Read ``key=value,value`` texts; raise UserError for anything else, or for too many points.

    ``rank`` and other keys that only one section has may stand without their section.
    """
    grid: Grid = {}
    for text in texts:
        key, equals, values = text.partition("=")
        listed = [value.strip() for value in values.split(",")]
        if not equals or not key.strip() or not all(listed):
            raise UserError(f"--sweep {text}: write key=value,value, such as rank=4,8,16.")
        name = _whole(key.strip())
        if name in grid:
            raise UserError(f"--sweep: '{name}' is there twice; list its values once.")
        grid[name] = listed
    count = math.prod(map(len, grid.values()))
    if count > _MOST_POINTS:
        raise UserError(f"--sweep: {count} settings are too many; at most {_MOST_POINTS}.")
    return grid


def sweep(
    grid: Grid,
    read: Callable[[Sequence[str]], Experiment],
    pilot: int | None,
    on_step: OnStep,
) -> list[Priced]:
    """Return the costs of every setting of a grid; ``read`` makes an experiment of overrides.

    So many rounds of each are really trained with ``pilot``. Raises UserError if none is possible.
    """
    points = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        overrides = [f"{key}={value}" for key, value in settings.items()]
        on_step(" ".join(overrides))
        try:
            experiment = read(overrides)
            count = pilot or rounds_of(experiment, _COMPARED)
            points.append(_priced(settings, experiment, count, bool(pilot)))
        except UserError as error:
            points.append(Priced(settings, None, problem=str(error)))
    if all(point.costs is None for point in points):
        raise UserError(f"--sweep: no setting is possible; {points[0].problem}")
    return points


def _priced(
    settings: dict[str, str], experiment: Experiment, rounds: int, trains: bool, said: str = ""
) -> Priced:
    total = experiment.train.rounds
    try:
        return Priced(settings, Costs.of(rehearse(experiment, rounds, trains)), total, said=said)
    except UserError as error:
        return Priced(settings, None, total, str(error), said)


def _whole(key: str) -> str:
    """Return a key with its section."""
    if "." in key or key in Experiment.model_fields:
        return key
    sections = [
        name
        for name, field in Experiment.model_fields.items()
        if key in getattr(field.annotation, "model_fields", {})
    ]
    if len(sections) == 1:
        return f"{sections[0]}.{key}"
    if sections:
        written = " or ".join(f"{section}.{key}" for section in sections)
        raise UserError(f"--sweep {key}: more than one section has it; write {written}.")
    return key
