"""Which client holds which rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True)
class Ragged:
    """Rows of every client, end to end: client c's are ``values[offsets[c]:offsets[c + 1]]``."""

    values: Rows
    offsets: Rows

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each client, [clients]."""
        return np.diff(self.offsets)


class Shares:
    """All clients' shares; each is made when asked for, so a large population costs its rows."""

    def __init__(
        self,
        rows: Ragged,
        names: list[str] | None,
        fraction: float,
        seed: int,
        held: Mapping[int, int] | None = None,
    ) -> None:
        """Hold out a ``fraction`` of each client's rows to test it, of some clients ``held``."""
        self._rows, self._names, self._seed = rows, names, seed
        self._held = held_out(rows.sizes, fraction)
        for client, count in (held or {}).items():
            self._held[client] = count

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Share]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, client: int) -> Share:
        start, end = self._rows.offsets[client : client + 2]
        rows, held = self._rows.values[start:end], int(self._held[client])
        return Share(*divided(rows, held, self._seed, client), self.name(client))

    def name(self, client: int) -> str:
        """Return what a client is called."""
        return str(client) if self._names is None else self._names[client]

    @property
    def examples(self) -> np.ndarray:
        """Rows that each client learns from, [clients]."""
        return self._rows.sizes - self._held


def held_out(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many of a client's own rows test it, leaving at least one to learn from."""
    held = np.minimum(np.rint(fraction * sizes).astype(np.int64), sizes - 1)
    return np.maximum(held, (sizes > 1) & (fraction > 0))


def divided(rows: Rows, held: int, seed: int, client: int) -> tuple[Rows, Rows]:
    """Return the rows that a client learns from and the ``held`` ones that test it, in order."""
    drawn = keyed.generator(seed, "personal test", client).permutation(rows)
    return np.sort(drawn[held:]), np.sort(drawn[:held])


def partition(frame: pd.DataFrame, config: ClientsConfig, seed: int) -> Shares:
    """Return every client's share; every client has at least one training row.

    A random partition that leaves a client without rows is drawn again, 20 times at most.
    """
    if config.count > len(frame):
        raise UserError(
            f"clients.count: {config.count} clients but only {len(frame)} training examples; "
            "lower clients.count or give more data."
        )
    names = None
    if config.partition == "column":
        names, parts = _by_column(frame, config)
    elif config.partition == "groups":
        parts = _by_groups(frame, config, seed)
    else:
        parts = _drawn(frame, config, seed)
    return Shares(parts, names, config.test_fraction, seed)


def iid(rows: int, clients: int, rng: np.random.Generator) -> Ragged:
    """Deal shuffled rows out evenly."""
    sizes = np.full(clients, rows // clients) + (np.arange(clients) < rows % clients)
    return Ragged(rng.permutation(rows), np.concatenate([[0], np.cumsum(sizes)]))


def dirichlet(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> Ragged:
    """Split each label's rows over clients by p ~ Dirichlet(alpha, ..., alpha)."""
    dealt, owners = [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(int)
        dealt.append(rows)
        owners.append(np.searchsorted(cuts, np.arange(len(rows)), side="right"))
    return _grouped(np.concatenate(dealt), np.concatenate(owners), clients)


def quantity(rows: int, clients: int, alpha: float, rng: np.random.Generator) -> Ragged:
    """Give all the same mix in unequal amounts: sizes ~ Dirichlet(alpha, ..., alpha)."""
    cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * rows).astype(int)
    return Ragged(rng.permutation(rows), np.concatenate([[0], cuts, [rows]]))


def _grouped(rows: Rows, owners: np.ndarray, clients: int) -> Ragged:
    """Sort rows by their owners, keeping their order otherwise."""
    counts = np.bincount(owners, minlength=clients)
    return Ragged(rows[np.argsort(owners, kind="stable")], np.concatenate([[0], np.cumsum(counts)]))


def _drawn(frame: pd.DataFrame, config: ClientsConfig, seed: int) -> Ragged:
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
                    "use iid, quantity, column or groups."
                )
            parts = dirichlet(frame["_label"].to_numpy(), config.count, config.alpha, rng)
        if parts.sizes.all():
            return parts
    empty = int(np.argmin(parts.sizes))
    raise UserError(
        f"clients.alpha: {config.alpha} leaves clients such as {empty} without any example in "
        f"{_DRAWS} draws; raise clients.alpha or lower clients.count."
    )


def _by_groups(frame: pd.DataFrame, config: ClientsConfig, seed: int) -> Ragged:
    """Give each value's rows to one client, the largest first, always to who has least by then."""
    codes, values = _coded(frame, config)
    sizes, dealt = np.bincount(codes), np.zeros(config.count, dtype=np.int64)
    shuffled = keyed.generator(seed, "groups").permutation(len(values))
    owner = np.empty(len(values), dtype=np.int64)
    for code in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        owner[code] = np.argmin(dealt)
        dealt[owner[code]] += sizes[code]
    return _grouped(np.arange(len(frame)), owner[codes], config.count)


def _coded(frame: pd.DataFrame, config: ClientsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's value of the column as a number, and the values, at least one a client."""
    column = config.column or ""
    if column not in frame.columns:
        raise UserError(
            f"clients.column: the training data has no column '{column}'; "
            f"{nearest(column, [name for name in map(str, frame.columns) if name[:1] != '_'])}"
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
    return codes, np.asarray(values)


def _by_column(frame: pd.DataFrame, config: ClientsConfig) -> tuple[list[str], Ragged]:
    codes, values = _coded(frame, config)
    # The largest groups become clients; ties by name so that the choice is a function of the data.
    sizes = np.bincount(codes)
    order = sorted(range(len(values)), key=lambda code: (-sizes[code], str(values[code])))
    chosen = order[: config.count]
    place = np.full(len(values), config.count)
    place[chosen] = np.arange(config.count)
    kept = np.flatnonzero(place[codes] < config.count)
    return [str(values[code]) for code in chosen], _grouped(kept, place[codes][kept], config.count)
