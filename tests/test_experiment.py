"""Descriptions: defaults, shorthands, overrides, and one sentence for every mistake."""

from __future__ import annotations

import pytest

from airtune.errors import UserError
from airtune.experiment import Experiment, read_experiment


def write(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def test_the_shortest_experiment_is_empty(tmp_path):
    assert read_experiment(write(tmp_path, "")) == Experiment()
    assert read_experiment(write(tmp_path, "{}")) == Experiment()


def test_resolved_yaml_reads_back_to_an_equal_experiment(tmp_path):
    first = Experiment(
        cell={
            "preset": "legacy-macro",
            "devices": ["phone", "laptop"],
            "packet_error": "waterfall",
        },
        method={"name": "fedavg", "private": ["classifier.*"]},
        train={"clip_norm": None},
    )
    assert read_experiment(write(tmp_path, first.to_yaml())) == first


def test_words_stand_for_sections_and_overrides_reach_below_them(tmp_path):
    path = write(tmp_path, "cell: urban-macro\nmethod: fedavg\n")
    changed = read_experiment(
        path,
        ["cell.bandwidth_hz=5e6", "method.value_type=float16", "train.rounds=2", "clients.column="],
    )
    assert changed.cell.path_loss == "uma"
    assert changed.cell.bandwidth_hz == 5e6
    assert changed.method.value_type == "float16"
    assert changed.train.rounds == 2
    assert changed.clients.column is None
    assert read_experiment(path, ["cell=ideal"]).cell.ideal


def test_the_machine_does_not_belong_to_the_result():
    one, other = Experiment(machine={"cohort": 1}), Experiment(machine={"cohort": 7})
    assert one.result_keys() == other.result_keys()
    assert one.result_keys() != Experiment(seed=1).result_keys()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trian": {}}, "trian: there is no such key; did you mean 'train'?"),
        ({"train": {"round": 3}}, "train.round: there is no such key; did you mean 'rounds'?"),
        ({"cell": {"rate": {"gap": 1}}}, "cell.rate.gap: there is no such key"),
        ({"cell": {"bandwidth_hz": -1}}, "cell.bandwidth_hz: input should be greater than 0"),
        ({"cell": {"preset": "urban-mikro"}}, "cell: .*did you mean 'urban-micro'?"),
        ({"cell": {"preset": "urban-mikro"}}, r"did you mean 'urban-micro'\?$"),
        ({"cell": "urban"}, "cell: no cell preset 'urban'"),
        ({"cell": {"bandwidth_hz": 1000}}, "narrower than one resource block"),
        ({"train": {"rounds": "many"}}, "train.rounds: .*integer.* but it is 'many'"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate"),
        ({"adapter": {"rank": 0}}, "adapter.rank: input should be greater than 0, but it is 0"),
        ({"clients": {"alpha": 0}}, "clients.alpha: input should be greater than 0, but it is 0"),
        ({"clients": {"per_round": 11}}, "per_round is 11 but there are 10 clients"),
        ({"clients": {"test_fraction": 1.0}}, "clients.test_fraction: input should be less than 1"),
        ({"clients": {"partition": "column"}}, "column's name go together"),
        ({"data": {"response": "r"}}, "prompt and response go together"),
        ({"data": {"prompt": "p", "label": "l"}}, "label .* and prompt exclude another"),
        (
            {"method": {"name": "pwff", "preferences": [0.2, 1.5]}},
            "method.preferences.1: input should be less than or equal to 1, but it is 1.5",
        ),
        (
            {"clients": {"partition": "groups"}},
            "partition: column or groups and the column's name go together",
        ),
        (
            {"method": {"name": "pwff", "trains_for": 1.2}},
            "method.trains_for: input should be less than or equal to 1, but it is 1.2",
        ),
        (
            {"method": {"name": "pwff", "trains_for": "mine"}},
            "method.trains_for: input should be 'own', but it is 'mine'",
        ),
        (
            {"method": {"name": "pwff", "rewards": {"helpful": {"train": "f.csv"}}}},
            "method.rewards.safe: this key is missing",
        ),
        ({"method": "fedavgg"}, "method.name: there is no method 'fedavgg'; did you mean 'fedavg'"),
        ({"method": {"name": "fedavg", "mu": 1}}, "method.mu: there is no such key"),
        ({"method": {"name": "fedavg", "value_type": "int4"}}, "method.value_type: .*float16"),
        ({"method": 3}, "method: give a method's name"),
        ({"machine": {"device": "tpu"}}, "'tpu' is no device"),
        ({"machine": {"device": "cuda:abc"}}, "'cuda:abc' is no device"),
        ({"cell": {"preset": [1]}}, "no cell preset"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0"),
        ({"name": "a/b"}, "name: a name has letters"),
        (
            {"data": {"prompt": "p", "response": "r"}, "clients": {"partition": "dirichlet"}},
            "dirichlet needs labels",
        ),
    ],
)
def test_mistakes_are_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        Experiment(**values)
    assert "\n" not in str(caught.value)
    assert str(caught.value)[-1] in ".?"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", "line 1: this is not YAML|line 2: this is not YAML"),
        ("on: 3", "True: there is no such key"),
        ("- 1\n- 2\n", "is a mapping of keys, not a list"),
        ("\x00", "not YAML"),
    ],
)
def test_files_that_are_no_experiment(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_experiment(write(tmp_path, text))


@pytest.mark.parametrize("override", ["train.rounds", "=3", "train..rounds=1", "seed.x=1", "a=[1"])
def test_overrides_that_cannot_be_read(tmp_path, override):
    with pytest.raises(UserError, match="--set"):
        read_experiment(write(tmp_path, "seed: 1"), [override])


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no experiment file 'nowhere\.yaml'"):
        read_experiment("nowhere.yaml")
