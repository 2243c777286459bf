"""Where a run writes, and what must not be overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from airtune.errors import UserError
from airtune.experiment import Experiment, read_experiment

_DESCRIPTION = "experiment.yaml"
_LOCK = ".lock"


def choose(experiment: Experiment, out: str | Path | None, resume: bool) -> Path:
    """Return where a run shall write, touching nothing; refuse what holds anything else.

    Without ``out`` it is ``runs/NAME``, or ``runs/NAME-2`` and so on where that is taken; with
    ``resume`` the newest of these that holds this experiment.
    """
    folder = Path(out) if out is not None else _below_runs(experiment, resume)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: '{folder}' is a file; name a directory.")
    if folder.is_dir() and any(file.name != _LOCK for file in folder.iterdir()):
        _check(folder, experiment, resume)
    elif resume:
        raise UserError(
            f"--resume: there is no run in '{folder}'; leave --resume out to start one."
        )
    return folder


@contextmanager
def held(experiment: Experiment, out: str | Path | None, resume: bool) -> Iterator[Path]:
    """Choose and make the run directory, describe the experiment in it, keep other processes out.

    The lock goes with its process, so a killed run can be resumed at once.
    """
    folder = choose(experiment, out, resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK).acquire(timeout=0):
            choose(experiment, folder, resume)  # again: another process may have been here
            if not (folder / _DESCRIPTION).exists():
                write(folder / _DESCRIPTION, experiment.to_yaml())
            yield folder
    except Timeout as error:
        raise UserError(
            f"--out: another process is writing to '{folder}'; name another directory."
        ) from error
    except OSError as error:
        raise UserError(f"--out: '{folder}' cannot be written ({error.strerror}).") from error


def write(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it finds all or nothing."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _below_runs(experiment: Experiment, resume: bool) -> Path:
    taken = []
    for number in count(1):
        folder = Path("runs") / (experiment.name if number == 1 else f"{experiment.name}-{number}")
        if not folder.exists():
            break
        taken.append(folder)
    if not resume:
        return folder
    for candidate in reversed(taken):
        if (candidate / _DESCRIPTION).is_file() and not _differences(candidate, experiment):
            return candidate
    raise UserError(
        f"--resume: no run below 'runs' holds this experiment ({len(taken)} named "
        f"'{experiment.name}' looked at); leave --resume out to start one."
    )


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
    try:
        held = _flat(read_experiment(folder / _DESCRIPTION).result_keys())
    except UserError as error:  # of another version, or damaged
        return [f"{folder / _DESCRIPTION}, which cannot be read: {error}".rstrip(".")]
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
