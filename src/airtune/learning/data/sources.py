"""Tables of texts: from the package, from files, from a hub."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.errors import UserError, nearest
from airtune.learning import hub
from airtune.learning.config import DataConfig, Task
from airtune.learning.data import netops, preferences, topics

_GZIP = b"\x1f\x8b"
EMBEDDED = ("netops", "netops-instruct", "topics")
_READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


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


_PUBLIC_ROWS = 500  # by default, where a method needs public texts


def load_table(config: DataConfig, seed: int, needs_public: bool = False) -> Table:
    """Read and check the data that ``config`` names; raise UserError for what does not fit.

    With ``needs_public`` some rows become public texts if the configuration names none.
    """
    config, raw_train, raw_test = _read(config)
    task: Task = "causal"
    classes: list[str] = []
    if config.chosen is not None:
        train, test = _preferences(*raw_train, config), _preferences(*raw_test, config)
    elif config.response is not None:
        train, test = _instructions(*raw_train, config), _instructions(*raw_test, config)
    elif config.prompt is not None:
        train, test = _prompts(*raw_train, config), _prompts(*raw_test, config)
    elif config.label is not None or (config.text != "label" and "label" in raw_train[0]):
        task = "classification"
        train, test, classes = _labelled(raw_train, raw_test, config, config.label or "label")
    else:
        train, test = _plain(*raw_train, config), _plain(*raw_test, config)
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
        return _preferences(frame, file, config)
    if config.response is not None:
        return _instructions(frame, file, config)
    label = config.label or "label"
    if classes and label in frame.columns:
        known = set(classes)
        for row, value in frame[label].items():
            if str(value) not in known:
                raise UserError(
                    f"data.public: {_row(row, file)} has label '{value}', which the private data "
                    f"does not have: their {len(classes)} classes must be those of the public "
                    "texts, or the file has no labels."
                )
    return _plain(frame, file, config)


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


_Named = tuple[pd.DataFrame, str]


def _read(config: DataConfig) -> tuple[DataConfig, _Named, _Named]:
    """Return raw train and test frames, each with the words that name it in an error."""
    if config.train is not None:
        train = read_file(config.train, "data.train")
        if config.test is None:
            return config, *_hold_out(train, config, config.train)
        return config, (train, config.train), (read_file(config.test, "data.test"), config.test)
    if config.name == "topics":
        train, test = topics.frames()
        config = config.model_copy(update={"prompt": "prompt"})
        return config, (train, config.name), (test, config.name)
    if config.name in EMBEDDED:
        train, test = netops.generate()
        if config.name == "netops-instruct":
            config = config.model_copy(update={"prompt": "prompt", "response": "response"})
        return config, (train, config.name), (test, config.name)
    if Path(config.name).suffix.lower() in (*_READERS, ".gz"):
        raise UserError("data.name: give a file's path as data.train (and data.test).")
    return config, *_from_hub(config)


def read_file(path: str, where: str) -> pd.DataFrame:
    """Return the rows of a CSV, JSONL or Parquet file; ``where`` names the key in errors."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{where}: there is no file '{path}'.")
    suffixes = [s for s in map(str.lower, file.suffixes) if s != ".gz"]
    kind = _READERS.get(suffixes[-1] if suffixes else "")
    if kind is None:
        raise UserError(
            f"{where}: '{file.name}' is of no known kind; valid are .csv, .tsv, .jsonl, .parquet, "
            "each also with .gz."
        )
    try:
        content = file.read_bytes()
        plain = BytesIO(gzip.decompress(content) if content[:2] == _GZIP else content)
        if kind == "csv":
            # Without defaults, texts such as "None" or "NA" would turn into missing values.
            frame = pd.read_csv(
                plain, keep_default_na=False, sep="\t" if suffixes[-1] == ".tsv" else ","
            )
        elif kind == "json":
            frame = pd.read_json(plain, lines=suffixes[-1] == ".jsonl", dtype=False)
        else:
            frame = pd.read_parquet(plain)
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: '{path}' cannot be read as {kind}: {_first(error)}.") from error
    if frame.empty:
        raise UserError(f"{where}: '{path}' has no rows.")
    return frame


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _from_hub(config: DataConfig) -> tuple[_Named, _Named]:
    import datasets

    if not hub.reachable():
        datasets.config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(config.name, config.subset)
    except (ConnectionError, FileNotFoundError) as error:
        raise hub.unavailable("data set", config.name, "data.name") from error
    except (ValueError, RuntimeError, OSError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"data.name: '{config.name}' cannot be loaded: {_first(error)}.") from error
    if "train" not in loaded:
        raise UserError(f"data.name: '{config.name}' has no train split; it has {list(loaded)}.")
    train = _frame(loaded["train"])
    held_out = next((loaded[key] for key in ("test", "validation") if key in loaded), None)
    if held_out is None:
        return _hold_out(train, config, config.name)
    return (train, config.name), (_frame(held_out), config.name)


def _frame(split: Any) -> pd.DataFrame:
    """Return a split as a frame, classes by their names where it has them."""
    frame: pd.DataFrame = split.to_pandas()
    for column, feature in split.features.items():
        names = getattr(feature, "names", None)
        if names and frame[column].between(0, len(names) - 1).all():
            frame[column] = [names[value] for value in frame[column]]
    return frame


def _hold_out(frame: pd.DataFrame, config: DataConfig, where: str) -> tuple[_Named, _Named]:
    """Split off a tenth of a fixed shuffle; of each label at least one row stays to learn from."""
    if len(frame) == 1:
        raise UserError(
            f"data.train: '{where}' has one row, and some are held out to test; give more rows, or "
            "a file as test."
        )
    order = keyed.generator(0, "hold out").permutation(len(frame))
    label = config.label or "label"
    if config.response is None and label in frame.columns:
        first = ~frame[label].iloc[order].astype(str).duplicated().to_numpy()
        order = np.concatenate([order[~first], order[first]])
    cut = max(1, len(frame) // 10)
    train, test = frame.iloc[np.sort(order[cut:])], frame.iloc[np.sort(order[:cut])]
    return (train, where), (test, where)


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
        raise UserError(f"data.{key}: {_row(wrong[0], where)} has no text in column '{name}'.")
    return column


def _row(index: Any, where: str) -> str:
    """Name a row as the file counts it, whatever was held out before."""
    return f"row {int(index) + 1} of '{where}'"


def _plain(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    return frame.assign(_prompt="", _text=_texts(frame, config.text, "text", where))


def _prompts(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    # The built-in prompts are beginnings of stories: nothing stands between them and the answer.
    end = "" if where == "topics" else "\n"
    prompts = [text + end for text in _joined(frame, where, config)]
    return frame.assign(_prompt=prompts, _text=None)


def _joined(frame: pd.DataFrame, where: str, config: DataConfig) -> list[str]:
    """Return the prompts' columns, one below the other."""
    columns = [config.prompt] if isinstance(config.prompt, str) else config.prompt or []
    parts = [_texts(frame, name, "prompt", where) for name in columns]
    return ["\n".join(p for p in row if p) for row in zip(*parts, strict=True)]


def _instructions(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
    response = _texts(frame, config.response or "", "response", where)
    empty = response.index[response.str.strip() == ""]
    if len(empty):
        raise UserError(f"data.response: {_row(empty[0], where)} has an empty response.")
    prompts = [text + "\n" for text in _joined(frame, where, config)]
    return frame.assign(_prompt=prompts, _text=response)


def _preferences(frame: pd.DataFrame, where: str, config: DataConfig) -> pd.DataFrame:
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


def _spoken(
    frame: pd.DataFrame, name: str, key: str, where: str, read: Callable[[Any], str | None]
) -> list[str]:
    """Return a column's texts, where cells may be messages too."""
    found = []
    for row, cell in _column(frame, name, key, where).items():
        text = read(cell)
        if text is None:
            raise UserError(
                f"data.{key}: {_row(row, where)} has neither a text nor messages (from and value, "
                f"or role and content) in column '{name}'."
            )
        found.append(text)
    return found


def _labelled(
    train: _Named, test: _Named, config: DataConfig, column: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    for frame, where in (train, test):
        _check_labels(_column(frame, column, "label", where), column, where)
    values = train[0][column]
    if pd.api.types.is_integer_dtype(values) and config.classes is not None:
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
        labels = frame[column].map(index)
        unknown = frame.index[labels.isna()]
        if len(unknown):
            value = frame[column][unknown[0]]
            raise UserError(
                f"data.label: {_row(unknown[0], where)} has label '{value}', which is out "
                f"of range: {len(names)} classes, {names[0]} to {names[-1]}."
            )
        texts = _texts(frame, config.text, "text", where)
        frames.append(frame.assign(_prompt="", _text=texts, _label=labels.astype(int)))
    return frames[0], frames[1], [str(name) for name in names]


def _check_labels(values: pd.Series, column: str, where: str) -> None:
    """Refuse missing labels, and labels that are not all numbers or all words."""
    for row, value in values.items():
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise UserError(f"data.label: {_row(row, where)} has no label in column '{column}'.")
        if not isinstance(value, str | int | float | np.generic):
            raise UserError(
                f"data.label: {_row(row, where)} has a {type(value).__name__} in column "
                f"'{column}'; a label is one word or number."
            )
    if len({isinstance(value, str) for value in values}) > 1:
        raise UserError(f"data.label: column '{column}' of '{where}' mixes words and numbers.")


def _limit(frame: pd.DataFrame, count: int | None, seed: int, purpose: str) -> pd.DataFrame:
    if count is None or count >= len(frame):
        return frame.reset_index(drop=True)
    chosen = keyed.generator(seed, purpose).permutation(len(frame))[:count]
    return frame.iloc[np.sort(chosen)].reset_index(drop=True)
