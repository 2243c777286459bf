"""Run directories: nothing is overwritten."""

from __future__ import annotations

import pytest

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.folder import choose as look
from airtune.folder import create


def choose(experiment, out, resume):
    """Choose and create, as a run does."""
    folder = look(experiment, out, resume)
    create(folder, experiment)
    return folder


def test_the_default_place_is_below_runs_and_never_taken_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(choose(Experiment(), None, resume=False)) for _ in range(3)]
    assert names == ["runs/quickstart", "runs/quickstart-2", "runs/quickstart-3"]


def test_resume_finds_the_newest_that_holds_this_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choose(Experiment(seed=1), None, resume=False)
    choose(Experiment(seed=1), None, resume=False)
    choose(Experiment(seed=2), None, resume=False)
    assert str(choose(Experiment(seed=1), None, resume=True)) == "runs/quickstart-2"
    assert str(choose(Experiment(seed=3), None, resume=True)) == "runs/quickstart-4"


def test_another_experiment_other_files_and_the_same_run_are_refused(tmp_path):
    folder = tmp_path / "run"
    choose(Experiment(), folder, resume=False)
    with pytest.raises(UserError, match=r"another experiment \(it differs in train.rounds\)"):
        choose(Experiment(train={"rounds": 99}), folder, resume=True)
    with pytest.raises(UserError, match="continue it with --resume"):
        choose(Experiment(), folder, resume=False)
    assert choose(Experiment(machine={"cohort": 2}), folder, resume=True) == folder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        choose(Experiment(), tmp_path / "mine", resume=False)
    with pytest.raises(UserError, match="is a file"):
        choose(Experiment(), tmp_path / "mine" / "thesis.txt", resume=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
