"""Tables of texts: training, test and public rows with the columns' meaning settled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.config import DataConfig, Task
from airtune.learning.data import columns
from airtune.learning.data.reading import read, read_file

_PUBLIC_ROWS = 500  # by default, where a method needs public texts


@dataclass(frozen=True)
class Table:
    """Training and test rows with the columns' meaning settled.

    ``train`` and ``test`` have columns ``_prompt`` (may be empty) and ``_text``, None where a
    prompt has no answer; for classification ``_label`` as an index into ``classes``; for
    preferences ``_rejected``, the answer that ``_text`` is preferred to. The data's own columns
    stay beside them. ``public`` are texts that everybody has, without labels; none where nobody
    asked.
    """

    task: Task
    train: pd.DataFrame
    test: pd.DataFrame
    classes: list[str]
    public: pd.DataFrame

    @property
    def preferences(self) -> bool:
        """Whether examples are pairs, of a chosen and a rejected answer."""
        return "_rejected" in self.train.columns

    @property
    def prompts_only(self) -> bool:
        """Whether nothing is to be learned from the texts themselves: no prompt has an answer."""
        return bool(self.train["_text"].isna().all())

    @property
    def prompted(self) -> bool:
        """Whether every example begins with something to answer."""
        return bool((self.train["_prompt"] != "").all())


def load_table(config: DataConfig, seed: int, needs_public: bool = False) -> Table:
    """Read and check the data that ``config`` names; raise UserError for what does not fit.

    With ``needs_public`` some rows become public texts if the configuration names none.
    """
    if config.test is not None and config.train is None:
        raise UserError("data.train: data.test names a file and it does not; name both files.")
    config, raw_train, raw_test = read(config)
    task: Task = "causal"
    classes: list[str] = []
    if config.chosen is not None:
        train, test = columns.pairs(*raw_train, config), columns.pairs(*raw_test, config)
    elif config.response is not None:
        train, test = (columns.instructions(*raw, config) for raw in (raw_train, raw_test))
    elif config.prompt is not None:
        train, test = columns.prompts(*raw_train, config), columns.prompts(*raw_test, config)
    elif config.label is not None or (config.text != "label" and "label" in raw_train[0]):
        task = "classification"
        label = config.label or "label"
        train, test, classes = columns.labelled(raw_train, raw_test, config, label)
    else:
        train, test = columns.plain(*raw_train, config), columns.plain(*raw_test, config)
    train = _limit(train, config.train_limit, seed, "train limit")
    test = _limit(test, config.test_limit, seed, "test limit")
    if config.public is not None:
        public = _limit(_public_file(config, classes), config.public_rows, seed, "public limit")
    else:
        train, public = _set_aside(train, config.public_rows, needs_public, seed)
    if classes:
        public = public.drop(columns=["_label", config.label or "label"], errors="ignore")
    return Table(task, train, test, classes, public)


def _public_file(config: DataConfig, classes: list[str]) -> pd.DataFrame:
    """Return public texts; labels that they carry must be of the private data."""
    file = config.public or ""
    frame = read_file(file, "data.public")
    if config.chosen is not None:
        return columns.pairs(frame, file, config)
    if config.response is not None:
        return columns.instructions(frame, file, config)
    label = config.label or "label"
    if classes and label in frame.columns:
        known = set(classes)
        for row, value in frame[label].items():
            if str(value) not in known:
                raise UserError(
                    f"data.public: {columns.row_name(row, file)} has label '{value}', which the "
                    f"private data does not have: their {len(classes)} classes must be those of "
                    "the public texts, or the file has no labels."
                )
    return columns.plain(frame, file, config)


def _set_aside(
    train: pd.DataFrame, count: int | None, needed: bool, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take public rows out of the training rows; return what is left, and them."""
    if count is None:
        count = min(_PUBLIC_ROWS, len(train) // 4) if needed else 0
    if count >= len(train):
        raise UserError(
            f"data.public_rows: {count} public texts leave nothing of {len(train)} training rows; "
            "lower it, or give a file as data.public."
        )
    order = keyed.generator(seed, "public").permutation(len(train))
    public = train.iloc[np.sort(order[:count])]
    private = train.iloc[np.sort(order[count:])]
    return private.reset_index(drop=True), public.reset_index(drop=True)


def _limit(frame: pd.DataFrame, count: int | None, seed: int, purpose: str) -> pd.DataFrame:
    if count is None or count >= len(frame):
        return frame.reset_index(drop=True)
    chosen = keyed.generator(seed, purpose).permutation(len(frame))[:count]
    return frame.iloc[np.sort(chosen)].reset_index(drop=True)
