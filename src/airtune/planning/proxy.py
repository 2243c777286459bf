"""Texts that pilots learn from, none of them from the experiment's test set."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.experiment import Experiment
from airtune.learning.data.reading import read_file
from airtune.learning.data.sources import Table, load_table

_ROWS = 2000  # of the experiment's own, where no file is given
_HELD_OUT = 4  # one row in so many judges what was learned from the others


class Proxy(NamedTuple):
    """A table whose test rows are held-out proxy rows, and what it is made of, in words."""

    table: Table
    said: str


def load_proxy(experiment: Experiment, file: str | None) -> Proxy:
    """Read ``file`` as data.train is read, or draw some of the experiment's own training texts.

    Raises UserError for a file that does not fit.
    """
    if file is None:
        table = load_table(experiment.data, experiment.seed)
        count = min(_ROWS, len(table.train))
        order = keyed.generator(experiment.seed, "proxy").permutation(len(table.train))
        rows = table.train.iloc[np.sort(order[:count])]
        origin = f"{count} of the experiment's {len(table.train)} training texts, as there is no "
        origin += "--proxy FILE"
    else:
        read_file(file, "--proxy")
        data = experiment.data.model_copy(update={"train": file, "test": None, "public": None})
        table = load_table(data, experiment.seed)
        rows = pd.concat([table.train, table.test], ignore_index=True)
        origin = f"{len(rows)} texts of '{file}'"
    order = keyed.generator(experiment.seed, "proxy held out").permutation(len(rows))
    cut = max(1, len(rows) // _HELD_OUT)
    test, train = (
        rows.iloc[np.sort(part)].reset_index(drop=True) for part in (order[:cut], order[cut:])
    )
    said = f"{origin}; {len(test)} of them are held out to measure the loss"
    return Proxy(replace(table, train=train, test=test), said)
