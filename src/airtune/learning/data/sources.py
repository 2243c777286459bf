"""Tables of texts: from the package, from files, from a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.errors import UserError, nearest
from airtune.learning import hub
from airtune.learning.config import DataConfig, Task
from airtune.learning.data import netops

EMBEDDED = ("netops", "netops-instruct")
_READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Table:
    """Training and test rows with the columns' meaning settled.

    ``train`` and ``test`` have columns ``prompt`` (may be empty), ``text`` and, for
    classification, ``label`` as an index into ``classes``; further columns stay as they were.
    """

    task: Task
    train: pd.DataFrame
    test: pd.DataFrame
    classes: list[str]
    title: str


def load_table(config: DataConfig, seed: int) -> Table:
    """Read and check the data that ``config`` names; raise UserError for what does not fit."""
    config, raw_train, raw_test = _read(config)
    task: Task = "causal"
    classes: list[str] = []
    if config.response is not None:
        train, test = _instructions(*raw_train, config), _instructions(*raw_test, config)
    elif config.label is not None or (config.text != "label" and "label" in raw_train[0]):
        task = "classification"
        train, test, classes = _labelled(raw_train, raw_test, config, config.label or "label")
    else:
        train, test = _plain(*raw_train, config), _plain(*raw_test, config)
    train = _limit(train, config.train_limit, seed, "train limit")
    test = _limit(test, config.test_limit, seed, "test limit")
    return Table(task, train, test, classes, config.name)


_Named = tuple[pd.DataFrame, str]


def _read(config: DataConfig) -> tuple[DataConfig, _Named, _Named]:
    """Return raw train and test frames, each with the words that name it in an error."""
    if config.train is not None:
        train = read_file(config.train, "data.train")
        if config.test is None:
            train, test = _hold_out(train)
            return config, (train, config.train), (test, config.train)
        return config, (train, config.train), (read_file(config.test, "data.test"), config.test)
    if config.name in EMBEDDED:
        train, test = netops.generate()
        if config.name == "netops-instruct":
            config = config.model_copy(update={"prompt": "prompt", "response": "response"})
        return config, (train, config.name), (test, config.name)
    if hub.looks_like_path(config.name) and Path(config.name).suffix in (*_READERS, ".gz"):
        raise UserError("data.name: give a file's path as data.train (and data.test).")
    train, test = _from_hub(config.name)
    return config, (train, config.name), (test, config.name)


def read_file(path: str, where: str) -> pd.DataFrame:
    """Return the rows of a CSV, JSONL or Parquet file; ``where`` names the key in errors."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{where}: there is no file '{path}'.")
    suffixes = [s for s in file.suffixes if s != ".gz"]
    kind = _READERS.get(suffixes[-1] if suffixes else "")
    if kind is None:
        raise UserError(
            f"{where}: '{file.name}' is of no known kind; valid are .csv, .tsv, .jsonl, .parquet, "
            "each also with .gz."
        )
    try:
        if kind == "csv":
            # Without defaults, texts such as "None" or "NA" would turn into missing values.
            frame = pd.read_csv(
                file, keep_default_na=False, sep="\t" if suffixes[-1] == ".tsv" else ","
            )
        elif kind == "json":
            frame = pd.read_json(file, lines=suffixes[-1] == ".jsonl", dtype=False)
        else:
            frame = pd.read_parquet(file)
    except (ValueError, OSError, EOFError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{where}: '{path}' cannot be read as {kind}: {first}") from error
    if frame.empty:
        raise UserError(f"{where}: '{path}' has no rows.")
    return frame


def _from_hub(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    import datasets

    if not hub.reachable():
        datasets.config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(name)
    except (ConnectionError, FileNotFoundError, ValueError, OSError) as error:
        raise hub.unavailable("data set", name, "data.name") from error
    if "train" not in loaded:
        raise UserError(f"data.name: '{name}' has no train split; it has {', '.join(loaded)}.")
    train = loaded["train"].to_pandas()
    held_out = next((loaded[key] for key in ("test", "validation") if key in loaded), None)
    return _hold_out(train) if held_out is None else (train, held_out.to_pandas())


def _hold_out(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split off every tenth row of a fixed shuffle."""
    order = keyed.generator(0, "hold out").permutation(len(frame))
    cut = max(1, len(frame) // 10)
    return frame.iloc[np.sort(order[cut:])], frame.iloc[np.sort(order[:cut])]


def _column(frame: pd.DataFrame, name: str, key: str, where: str) -> pd.Series:
    if name not in frame.columns:
        raise UserError(
            f"data.{key}: '{where}' has no column '{name}'; "
            f"{nearest(name, map(str, frame.columns))}"
        )
    return frame[name]


def _texts(frame: pd.DataFrame, name: str, key: str, where: str) -> pd.Series:
    column = _column(frame, name, key, where)
    wrong = [i for i, value in enumerate(column) if not isinstance(value, str)]
    if len(wrong) == len(frame):
        raise UserError(f"data.{key}: column '{name}' of '{where}' holds no text.")
    if wrong:
        raise UserError(
            f"data.{key}: row {wrong[0] + 1} of '{where}' has no text in column '{name}'."
        )
    return column


def _plain(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    return frame.assign(prompt="", text=_texts(frame, config.text, "text", where))


def _instructions(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    columns = [config.prompt] if isinstance(config.prompt, str) else config.prompt or []
    parts = [_texts(frame, name, "prompt", where) for name in columns]
    response = _texts(frame, config.response or "", "response", where)
    empty = np.flatnonzero(response.str.strip() == "")
    if len(empty):
        raise UserError(f"data.response: row {empty[0] + 1} of '{where}' has an empty response.")
    prompts = ["\n".join(p for p in row if p) + "\n" for row in zip(*parts, strict=True)]
    return frame.assign(prompt=prompts, text=response)


def _labelled(
    train: _Named, test: _Named, config: DataConfig, column: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    values = _column(train[0], column, "label", train[1])
    integers = pd.api.types.is_integer_dtype(values)
    if integers and config.classes is not None:
        names = list(range(config.classes))
    else:
        names = sorted(values.unique().tolist())
    if config.classes is not None and len(names) != config.classes:
        raise UserError(f"data.classes: {config.classes} given but '{column}' has {len(names)}.")
    if len(names) < 2:
        raise UserError(f"data.label: column '{column}' of '{train[1]}' has one value only.")
    index = {name: i for i, name in enumerate(names)}
    frames = []
    for frame, where in (train, test):
        labels = _column(frame, column, "label", where).map(index)
        unknown = np.flatnonzero(labels.isna())
        if len(unknown):
            value = frame[column].iloc[unknown[0]]
            raise UserError(
                f"data.label: row {unknown[0] + 1} of '{where}' has label '{value}', which is out "
                f"of range: {len(names)} classes, {names[0]} to {names[-1]}."
            )
        texts = _texts(frame, config.text, "text", where)
        frames.append(frame.assign(prompt="", text=texts, label=labels.astype(int)))
    return frames[0], frames[1], [str(name) for name in names]


def _limit(frame: pd.DataFrame, count: int | None, seed: int, purpose: str) -> pd.DataFrame:
    if count is None or count >= len(frame):
        return frame.reset_index(drop=True)
    chosen = keyed.generator(seed, purpose).permutation(len(frame))[:count]
    return frame.iloc[np.sort(chosen)].reset_index(drop=True)
