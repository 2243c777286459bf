"""Every example runs, shortened; the real inputs are learned where they are at hand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import airtune
from airtune.experiment import Experiment, read_experiment

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
SHORT = [
    "train.rounds=1", "train.local_steps=1", "train.batch_size=4", "data.train_limit=400",
    "data.test_limit=40", "clients.test_fraction=0",
]  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_begins_with_its_command_and_runs(path, tmp_path, request):
    assert path.read_text().startswith(f"# airtune run examples/{path.name}\n")
    overrides = list(SHORT)
    if path.stem == "banking77":
        shared = request.getfixturevalue("shared")
        overrides += [
            f"data.train={shared('data/banking77/train.csv')}",
            f"data.test={shared('data/banking77/test.csv')}",
            f"model.name={shared('models/minilm-l6-v2')}",
        ]
    if path.stem in ("pfit", "pwff"):
        overrides += ["method.answers={prompts: 2, samples: 2, tokens: 4}"]
        overrides += ["method.examined={prompts: 2, samples: 1, tokens: 4}"]
    run = airtune.run(read_experiment(path, overrides), tmp_path / "run")
    assert run.summary["rounds"] == 1
    measure = "personal_reward" if path.stem in ("pfit", "pwff") else "accuracy"
    assert run.history[measure].notna().all()


def named_variants(stem):
    """Read each comment line with --set behind its title, as a shell would."""
    path, found = EXAMPLES[0].parent / f"{stem}.yaml", []
    for line in path.read_text().splitlines():
        if line.startswith("#   ") and "--set" in line and "airtune run" not in line:
            words = shlex.split(line[line.index("--set") :])
            assert words[::2] == ["--set"] * (len(words) // 2)
            found.append(read_experiment(path, words[1::2]))
    return found


def test_the_variants_of_alignment_that_examples_name_are_experiments():
    pwff, pfit = named_variants("pwff"), named_variants("pfit")
    assert [each.method.trains_for for each in pwff[:3]] == ["own", 0.5, 1.0]
    assert [each.method.name for each in pwff] == [*["pwff"] * 4, "pwff_plus", "pwff"]
    assert pwff[3].method.weights == "anchored"
    assert pwff[5].method.rewards.helpful.train == "helpful.jsonl"
    assert [each.method.personal for each in pfit] == ["restart", "restart", *["copy"] * 3]
    assert pfit[2].method.algorithm == "ppo"
    assert pfit[3].adapter.kind == "lora"
    assert pfit[4].adapter.attention_window == 16


def test_the_baselines_that_an_example_names_are_experiments():
    found = named_variants("pftt")
    assert [each.method.name for each in found] == ["fedavg", "fedavg", "pftt", "fedavg"]
    assert found[1].adapter.kind == "bottleneck"
    assert found[3].method.private == ["*"]


def test_the_quickstart_is_the_empty_experiment():
    assert read_experiment(EXAMPLES[0].parent / "quickstart.yaml") == Experiment()


def test_banking77_is_learned(shared, tmp_path):
    """A short run: far above chance (0.013) and above what a frozen start would give (0)."""
    data = {
        "train": str(shared("data/banking77/train.csv")),
        "test": str(shared("data/banking77/test.csv")),
        "test_limit": 200,
    }
    experiment = Experiment(
        name="banking77",
        model={"name": str(shared("models/minilm-l6-v2"))},
        data={"name": "banking77", **data},
        clients={"count": 5, "test_fraction": 0},
        train={"rounds": 2, "local_steps": 6, "evaluate_every": 2},
    )
    run = airtune.run(experiment, tmp_path / "run")
    assert run.history["accuracy"].iloc[0] < 0.05
    assert run.history["accuracy"].iloc[-1] > 0.25


@pytest.mark.parametrize(
    "data",
    [
        {
            "name": "instruct",
            "train": "data/instruct_small/instructions_1k.jsonl.gz",
            "prompt": ["instruction", "input"],
            "response": "output",
        },
        {"name": "tinystories", "train": "data/tinystories/stories.jsonl.gz"},
    ],
    ids=lambda data: data["name"],
)
def test_a_pretrained_decoder_learns_real_text(shared, tmp_path, data):
    experiment = Experiment(
        name=data["name"],
        model={"name": str(shared("models/stories260k"))},
        data={**data, "train": str(shared(data["train"])), "train_limit": 400, "test_limit": 60},
        clients={"partition": "iid", "count": 4, "test_fraction": 0},
        train={"rounds": 2, "local_steps": 6, "learning_rate": 5e-3, "batch_size": 8},
    )
    run = airtune.run(experiment, tmp_path / "run")
    perplexity = run.history["perplexity"]
    assert perplexity.iloc[-1] < perplexity.iloc[0]
    if data["name"] == "tinystories":
        assert perplexity.iloc[0] < 6  # the model was trained on such stories: it is loaded right


def test_shakespeare_speakers_are_natural_clients(shared, tmp_path):
    experiment = Experiment(
        name="shakespeare",
        model={"name": str(shared("models/stories260k"))},
        data={
            "name": "shakespeare",
            "train": str(shared("data/shakespeare/by_character.jsonl.gz")),
            "test_limit": 40,
        },
        clients={"partition": "column", "column": "character", "count": 5, "per_round": 3},
        train={"rounds": 1, "local_steps": 1},
    )
    run = airtune.run(experiment, tmp_path / "run")
    assert len(run.uploads) == 3
    assert len(run.summary["personal_accuracies"]) == 5
