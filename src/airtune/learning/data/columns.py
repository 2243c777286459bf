"""What columns mean: texts, labels, prompts with answers, or pairs of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from airtune.errors import UserError, nearest
from airtune.learning.config import DataConfig
from airtune.learning.data import preferences
from airtune.learning.data.reading import Named


def plain(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    """Return the rows with their texts as answers to nothing."""
    return frame.assign(_prompt="", _text=_texts(frame, config.text, "text", where))


def prompts(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    """Return the rows as prompts without answers."""
    # The built-in prompts are beginnings of stories: nothing stands between them and the answer.
    end = "" if where == "topics" else "\n"
    prompts = [text + end for text in _joined(frame, where, config)]
    return frame.assign(_prompt=prompts, _text=None)


def instructions(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    """Return the rows as prompts with an answer each; raise UserError for an empty one."""
    response = _texts(frame, config.response or "", "response", where)
    empty = response.index[response.str.strip() == ""]
    if len(empty):
        raise UserError(f"data.response: {row_name(empty[0], where)} has an empty response.")
    prompts = [text + "\n" for text in _joined(frame, where, config)]
    return frame.assign(_prompt=prompts, _text=response)


def pairs(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    """Return the rows as prompts with a chosen and a rejected answer; cells may be messages."""
    chosen = _spoken(frame, config.chosen or "", "chosen", where, preferences.answer)
    rejected = _spoken(frame, config.rejected or "", "rejected", where, preferences.answer)
    if config.prompt is None:
        rows = [preferences.split(*pair) for pair in zip(chosen, rejected, strict=True)]
    else:
        columns = [config.prompt] if isinstance(config.prompt, str) else config.prompt
        parts = [_spoken(frame, name, "prompt", where, preferences.question) for name in columns]
        joined = ["\n".join(p for p in row if p) for row in zip(*parts, strict=True)]
        to_answer = preferences.TO_ANSWER
        prompts = [text if text.endswith(to_answer) else text + "\n" for text in joined]
        rows = list(zip(prompts, chosen, rejected, strict=True))
    names = ("_prompt", "_text", "_rejected")
    return frame.assign(**{name: [row[i] for row in rows] for i, name in enumerate(names)})


def labelled(
    train: Named, test: Named, config: DataConfig, column: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return train and test rows with their labels as indices, and the classes' names in order.

    Raise UserError for labels that are missing, of mixed kinds, or of test rows alone.
    """
    for frame, where in (train, test):
        _check_labels(_column(frame, column, "label", where), column, where)
    values = train[0][column]
    names: list[Any]
    if isinstance(config.classes, list):
        names = config.classes
    elif pd.api.types.is_integer_dtype(values) and config.classes is not None:
        names = list(range(config.classes))
    else:
        names = sorted(values.unique().tolist())
    if isinstance(config.classes, int) and len(names) != config.classes:
        raise UserError(f"data.classes: {config.classes} given but '{column}' has {len(names)}.")
    if len(names) < 2:
        raise UserError(f"data.label: column '{column}' of '{train[1]}' has one value only.")
    index = {name: i for i, name in enumerate(names)}
    # Classes that are named are texts, whatever the column holds.
    named = isinstance(config.classes, list)
    frames = []
    for frame, where in (train, test):
        own = frame[column].astype(str) if named else frame[column]
        frames.append(_indexed(frame, where, config, own.map(index), frame[column], names))
    return frames[0], frames[1], [str(name) for name in names]


def of_known_classes(
    frame: pd.DataFrame, where: str, config: DataConfig, classes: Sequence[str]
) -> pd.DataFrame:
    """Return rows with their labels as indices into classes that others settled."""
    column = config.label or "label"
    _check_labels(_column(frame, column, "label", where), column, where)
    index = {name: i for i, name in enumerate(classes)}
    labels = frame[column].astype(str).map(index)
    return _indexed(frame, where, config, labels, frame[column], classes)


def _indexed(
    frame: pd.DataFrame,
    where: str,
    config: DataConfig,
    labels: pd.Series,
    values: pd.Series,
    names: Sequence[Any],
) -> pd.DataFrame:
    unknown = frame.index[labels.isna()]
    if len(unknown):
        raise UserError(
            f"data.label: {row_name(unknown[0], where)} has label '{values[unknown[0]]}', which is "
            f"out of range: {len(names)} classes, {names[0]} to {names[-1]}; data.classes may name "
            "all there are."
        )
    texts = _texts(frame, config.text, "text", where)
    return frame.assign(_prompt="", _text=texts, _label=labels.astype(int))


def row_name(index: Any, where: str) -> str:
    """Name a row as the file counts it, whatever was held out before."""
    return f"row {int(index) + 1} of '{where}'"


def _column(frame: pd.DataFrame, name: str, key: str, where: str) -> pd.Series:
    if name not in frame.columns:
        raise UserError(
            f"data.{key}: '{where}' has no column '{name}'; "
            f"{nearest(name, map(str, frame.columns))}"
        )
    return frame[name]


def _texts(frame: pd.DataFrame, name: str, key: str, where: str) -> pd.Series:
    column = _column(frame, name, key, where)
    wrong = [row for row, value in column.items() if not isinstance(value, str)]
    if len(wrong) == len(frame):
        raise UserError(f"data.{key}: column '{name}' of '{where}' holds no text.")
    if wrong:
        raise UserError(f"data.{key}: {row_name(wrong[0], where)} has no text in column '{name}'.")
    return column


def _joined(frame: pd.DataFrame, where: str, config: DataConfig) -> list[str]:
    """Return the prompts' columns, one below the other."""
    columns = [config.prompt] if isinstance(config.prompt, str) else config.prompt or []
    parts = [_texts(frame, name, "prompt", where) for name in columns]
    return ["\n".join(p for p in row if p) for row in zip(*parts, strict=True)]


def _spoken(
    frame: pd.DataFrame, name: str, key: str, where: str, read: Callable[[Any], str | None]
) -> list[str]:
    """Return a column's texts, where cells may be messages too."""
    found = []
    for row, cell in _column(frame, name, key, where).items():
        text = read(cell)
        if text is None:
            raise UserError(
                f"data.{key}: {row_name(row, where)} has neither a text nor messages (from and "
                f"value, or role and content) in column '{name}'."
            )
        found.append(text)
    return found


def _check_labels(values: pd.Series, column: str, where: str) -> None:
    """Refuse missing labels, and labels that are not all numbers or all words."""
    for row, value in values.items():
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise UserError(
                f"data.label: {row_name(row, where)} has no label in column '{column}'."
            )
        if not isinstance(value, str | int | float | np.generic):
            raise UserError(
                f"data.label: {row_name(row, where)} has a {type(value).__name__} in column "
                f"'{column}'; a label is one word or number."
            )
    if len({isinstance(value, str) for value in values}) > 1:
        raise UserError(f"data.label: column '{column}' of '{where}' mixes words and numbers.")
