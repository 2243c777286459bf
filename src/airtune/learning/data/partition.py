"""Which client holds which rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.errors import UserError, nearest
from airtune.learning.config import ClientsConfig

Rows = np.ndarray
_DRAWS = 20


@dataclass(frozen=True)
class Share:
    """One client's rows of the training table: those it learns from and those that test it."""

    train: Rows
    test: Rows
    name: str


def partition(frame: pd.DataFrame, config: ClientsConfig, seed: int) -> list[Share]:
    """Return every client's share; every client has at least one training row.

    A random partition that leaves a client without rows is drawn again, 20 times at most.
    """
    if config.count > len(frame):
        raise UserError(
            f"clients.count: {config.count} clients but only {len(frame)} training examples; "
            "lower clients.count or give more data."
        )
    if config.partition == "column":
        names, parts = _by_column(frame, config)
    else:
        names = [str(client) for client in range(config.count)]
        parts = _drawn(frame, config, seed)
    return [
        _share(rows, config.test_fraction, name, seed, client)
        for client, (name, rows) in enumerate(zip(names, parts, strict=True))
    ]


def iid(rows: int, clients: int, rng: np.random.Generator) -> list[Rows]:
    """Deal shuffled rows out evenly."""
    return np.array_split(rng.permutation(rows), clients)


def dirichlet(
    labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator
) -> list[Rows]:
    """Split each label's rows over clients by p ~ Dirichlet(alpha, ..., alpha)."""
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(int)
        for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chunk)
    return [np.concatenate(part) for part in parts]


def quantity(rows: int, clients: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Give all the same mix in unequal amounts: sizes ~ Dirichlet(alpha, ..., alpha)."""
    cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * rows).astype(int)
    return np.split(rng.permutation(rows), cuts)


def _drawn(frame: pd.DataFrame, config: ClientsConfig, seed: int) -> list[Rows]:
    for draw in range(_DRAWS):
        rng = keyed.generator(seed, "partition", draw)
        if config.partition == "iid":
            parts = iid(len(frame), config.count, rng)
        elif config.partition == "quantity":
            parts = quantity(len(frame), config.count, config.alpha, rng)
        else:
            if "_label" not in frame.columns:
                raise UserError(
                    "clients.partition: dirichlet needs labels, and this task has none; "
                    "use iid, quantity or column."
                )
            parts = dirichlet(frame["_label"].to_numpy(), config.count, config.alpha, rng)
        if all(len(part) for part in parts):
            return parts
    empty = next(client for client, part in enumerate(parts) if not len(part))
    raise UserError(
        f"clients.alpha: {config.alpha} leaves clients such as {empty} without any example in "
        f"{_DRAWS} draws; raise clients.alpha or lower clients.count."
    )


def _by_column(frame: pd.DataFrame, config: ClientsConfig) -> tuple[list[str], list[Rows]]:
    column = config.column or ""
    if column not in frame.columns:
        raise UserError(
            f"clients.column: the training data has no column '{column}'; "
            f"{nearest(column, map(str, frame.columns))}"
        )
    try:
        codes, values = pd.factorize(frame[column], use_na_sentinel=False)
    except TypeError as error:
        raise UserError(f"clients.column: '{column}' holds no plain values.") from error
    if config.count > len(values):
        raise UserError(
            f"clients.count: {config.count} clients but column '{column}' has {len(values)} "
            f"values; give at most {len(values)}."
        )
    # The largest groups become clients; ties by name so that the choice is a function of the data.
    sizes = np.bincount(codes)
    order = sorted(range(len(values)), key=lambda code: (-sizes[code], str(values[code])))
    chosen = order[: config.count]
    return [str(values[code]) for code in chosen], [np.flatnonzero(codes == c) for c in chosen]


def _share(rows: Rows, fraction: float, name: str, seed: int, client: int) -> Share:
    """Hold out a client's own test rows, leaving at least one to learn from."""
    rows = keyed.generator(seed, "personal test", client).permutation(rows)
    held = min(round(fraction * len(rows)), len(rows) - 1)
    if fraction > 0 and len(rows) > 1:
        held = max(held, 1)
    return Share(np.sort(rows[held:]), np.sort(rows[:held]), name)
