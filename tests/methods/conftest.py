"""What methods are tested with: short runs of a small experiment."""

from __future__ import annotations

import pytest

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.federation import ledger


@pytest.fixture
def execute(small, tmp_path):
    """Function that runs a method and returns (parts, session, rows of the ledger)."""

    def run(method, **sections):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        experiment = Experiment(**small(method=method, **sections))
        parts = build(experiment)
        progress = session(parts, experiment, folder)
        list(progress.rounds())
        return parts, progress, ledger.read(folder / "ledger.jsonl")

    return run
