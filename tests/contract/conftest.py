"""What the promises are tested with: short runs of a registered method."""

from __future__ import annotations

import pytest

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.methods import registry


@pytest.fixture
def small(small):
    """The same small experiment, on prompts for methods that answer them."""

    def values(*task, **sections):
        method = sections.get("method", "fedavg")
        name = method if isinstance(method, str) else method["name"]
        if registry.find(name).answers_prompts:
            # Answers to be judged cost more than training: few clients, at the end.
            clients = {"tested": 2} | sections.pop("clients", {})
            train = {"evaluate_every": 3} | sections.pop("train", {})
            sections = {"task": "topics", "clients": clients, "train": train} | sections
        return small(*task, **sections)

    return values


@pytest.fixture
def execute(small, tmp_path):
    """Function that runs an experiment and returns (folder, parts, session)."""
    started = []

    def run(method, folder=None, stop_after=None, **sections):
        target = tmp_path / (folder or f"run{len(started)}")
        started.append(target)
        target.mkdir(exist_ok=True)
        experiment = Experiment(**small(method=method, **sections))
        parts = build(experiment)
        progress = session(parts, experiment, target)
        for totals in progress.rounds():
            if stop_after is not None and totals.round == stop_after:
                break
        return target, parts, progress

    return run
