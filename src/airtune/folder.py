"""Where a run writes, and what must not be overwritten."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from airtune.errors import UserError
from airtune.experiment import Experiment, read_experiment

_DESCRIPTION = "experiment.yaml"


def choose(experiment: Experiment, out: str | Path | None, resume: bool) -> Path:
    """Return where a run shall write, touching nothing; refuse what holds anything else.

    Without ``out`` it is ``runs/NAME``, or ``runs/NAME-2`` and so on where that is taken; with
    ``resume`` the newest of these that holds this experiment.
    """
    folder = Path(out) if out is not None else _below_runs(experiment, resume)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: '{folder}' is a file; name a directory.")
    if folder.is_dir() and any(folder.iterdir()):
        _check(folder, experiment, resume)
    return folder


def create(folder: Path, experiment: Experiment) -> None:
    """Make the run directory and describe the experiment in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _DESCRIPTION).write_text(experiment.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: '{folder}' cannot be written ({error.strerror}).") from error


def _below_runs(experiment: Experiment, resume: bool) -> Path:
    taken = []
    for number in count(1):
        folder = Path("runs") / (experiment.name if number == 1 else f"{experiment.name}-{number}")
        if not folder.exists():
            break
        taken.append(folder)
    if resume:
        for candidate in reversed(taken):
            if (candidate / _DESCRIPTION).is_file() and not _differences(candidate, experiment):
                return candidate
    return folder


def _check(folder: Path, experiment: Experiment, resume: bool) -> None:
    if not (folder / _DESCRIPTION).is_file():
        raise UserError(f"--out: '{folder}' holds other files; name a new or empty directory.")
    different = _differences(folder, experiment)
    if different:
        raise UserError(
            f"--out: '{folder}' already holds another experiment (it differs in "
            f"{', '.join(different[:3])}); name another directory."
        )
    if not resume:
        raise UserError(
            f"--out: '{folder}' already holds this experiment; continue it with --resume or name "
            "another directory."
        )


def _differences(folder: Path, experiment: Experiment) -> list[str]:
    held = _flat(read_experiment(folder / _DESCRIPTION).result_keys())
    wanted = _flat(experiment.result_keys())
    return sorted(key for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key))


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
