"""Run directories: nothing is overwritten."""

from __future__ import annotations

import pytest

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.folder import held


def choose(experiment, out, resume):
    """Take a folder as a run does, and let go of it."""
    with held(experiment, out, resume) as folder:
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
    with pytest.raises(UserError, match="no run below 'runs' holds this experiment"):
        choose(Experiment(seed=3), None, resume=True)


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


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
    with (
        held(Experiment(), tmp_path / "run", resume=False),
        pytest.raises(UserError, match="another process is writing"),
    ):
        choose(Experiment(), tmp_path / "run", resume=True)
    assert choose(Experiment(), tmp_path / "run", resume=True) == tmp_path / "run"


def test_a_half_written_description_is_never_left(tmp_path, monkeypatch):
    folder = choose(Experiment(), tmp_path / "run", resume=False)
    before = (folder / "experiment.yaml").read_text()
    choose(Experiment(machine={"cohort": 3}), folder, resume=True)
    assert (folder / "experiment.yaml").read_text() == before
    with pytest.raises(UserError, match="there is no run in"):
        choose(Experiment(), tmp_path / "none", resume=True)
