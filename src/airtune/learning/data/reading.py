"""Rows as they come: from the package, from files, from a hub."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.errors import UserError
from airtune.learning import hub
from airtune.learning.config import DataConfig
from airtune.learning.data import netops, topics

EMBEDDED = ("netops", "netops-instruct", "topics")
Named = tuple[pd.DataFrame, str]  # rows, and the words that name them in an error

_GZIP = b"\x1f\x8b"
_READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def read(config: DataConfig) -> tuple[DataConfig, Named, Named]:
    """Return raw train and test frames, and ``config`` with the columns of built-in data."""
    if config.train is not None:
        train = read_file(config.train, "data.train")
        if config.test is None:
            return config, *_hold_out(train, config, config.train)
        return config, (train, config.train), (read_file(config.test, "data.test"), config.test)
    if config.name in EMBEDDED:
        train, test = topics.frames() if config.name == "topics" else netops.generate()
        return with_columns(config), (train, config.name), (test, config.name)
    if Path(config.name).suffix.lower() in (*_READERS, ".gz"):
        raise UserError("data.name: give a file's path as data.train (and data.test).")
    return config, *_from_hub(config)


def with_columns(config: DataConfig) -> DataConfig:
    """Return ``config`` with the columns of built-in data, where that is what it names."""
    built_in = config.train is None and config.name
    if built_in == "topics":
        return config.model_copy(update={"prompt": "prompt"})
    if built_in == "netops-instruct":
        return config.model_copy(update={"prompt": "prompt", "response": "response"})
    return config


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


def _from_hub(config: DataConfig) -> tuple[Named, Named]:
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


def _hold_out(frame: pd.DataFrame, config: DataConfig, where: str) -> tuple[Named, Named]:
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
