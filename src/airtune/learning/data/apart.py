"""Tables of those who hold a part of the data only: a server without clients' rows, a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from airtune.errors import UserError
from airtune.learning.config import DataConfig, Task
from airtune.learning.data import columns
from airtune.learning.data.partition import Share, divided, held_out
from airtune.learning.data.reading import read_file, with_columns
from airtune.learning.data.sources import Table, load_table

_PUBLIC = ("_prompt", "_text", "_rejected")  # what travels of public texts


def server_table(config: DataConfig, seed: int, needs_public: bool = False) -> Table:
    """Return test and public texts, and the classes: those of the test texts, or as configured.

    Of data that is known by name the training rows are dropped; ``config.train`` is never opened.
    Raises UserError where the server has nothing to test on, or no public texts of its own.
    """
    if config.train is None and config.test is None:
        return without_rows(load_table(config, seed, needs_public))
    if config.test is None:
        raise UserError(
            "data.test: the devices hold the training rows, so the server needs a file of its own "
            "to test on; name one."
        )
    if config.public is None and (needs_public or config.public_rows is not None):
        raise UserError(
            "data.public: the devices hold the training rows, so public texts must come from a "
            "file at the server; name one."
        )
    alone = config.model_copy(update={"train": config.test, "train_limit": None})
    return without_rows(load_table(alone, seed))


def without_rows(table: Table) -> Table:
    """Return the table as a server has it whose clients keep their rows."""
    return replace(table, train=table.train.iloc[:0])


def public_columns(table: Table) -> dict[str, list[str | None]]:
    """Return the public texts as plain columns, to be sent to devices."""
    return {name: table.public[name].tolist() for name in _PUBLIC if name in table.public}


class OneShare:
    """The share of the one client whose rows are here, under its true number among ``count``."""

    def __init__(self, share: Share, client: int, count: int) -> None:
        self._share, self._client, self._count = share, client, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, client: int, /) -> Share:
        if client != self._client:
            raise IndexError(f"the rows of client {client} are not here")
        return self._share


def device_table(
    config: DataConfig,
    files: tuple[str, str | None],
    task: Task,
    classes: Sequence[str],
    public: Mapping[str, list[str | None]],
) -> tuple[Table, int]:
    """Return a device's own rows, those of its test file behind the others, and where these begin.

    ``files`` are the rows to learn from and, if there is one, to test on; task, classes and public
    texts are the server's. Raises UserError for rows that do not have the columns of ``config``.
    """
    train, *rest = [_meant(config, file, task, classes) for file in files if file is not None]
    rows = pd.concat([train, *rest], ignore_index=True)
    empty = rows.iloc[:0]
    texts = pd.DataFrame(public) if public else empty
    return Table(task, rows, empty, list(classes), texts), len(train)


def own_share(
    rows: int, first_test: int, fraction: float | None, seed: int, client: int, name: str
) -> Share:
    """Return which rows of a device test it: from ``first_test`` on, or a drawn ``fraction``.

    The draw is that of a client with as many rows in one process.
    """
    if fraction is None:
        return Share(np.arange(first_test), np.arange(first_test, rows), name)
    held = int(held_out(np.array([rows]), fraction)[0])
    return Share(*divided(np.arange(rows), held, seed, client), name)


def count_rows(path: str, key: str) -> int:
    """Return how many rows a device's file has; ``key`` names it in errors."""
    return len(read_file(path, key))


def _meant(config: DataConfig, path: str, task: Task, classes: Sequence[str]) -> pd.DataFrame:
    # A device's log names the file alone: the path around it is nobody's business.
    config, where = with_columns(config), Path(path).name
    frame = read_file(path, "--train")
    if task == "classification":
        return columns.of_known_classes(frame, where, config, classes)
    if config.chosen is not None:
        return columns.pairs(frame, where, config)
    if config.response is not None:
        return columns.instructions(frame, where, config)
    if config.prompt is not None:
        return columns.prompts(frame, where, config)
    return columns.plain(frame, where, config)
