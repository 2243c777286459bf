"""Baselines that are options: alone, and all in one place."""

import airtune
from airtune.experiment import Experiment


def test_clients_that_keep_everything_learn_alone(small, tmp_path):
    method = {"name": "fedavg", "private": ["*"]}
    clients = {"count": 3, "partition": "iid"}
    train = {"rounds": 4, "local_steps": 12}
    run = airtune.run(
        Experiment(**small(method=method, clients=clients, train=train)), tmp_path / "a"
    )
    history = run.history
    assert history["accuracy"].nunique() == 1  # the server learns nothing
    assert history["personal_accuracy"].iloc[-1] > history["personal_accuracy"].iloc[0] + 0.1
    assert run.summary["uplink_bits"] < 4 * 3 * 400  # empty messages


def test_one_client_in_an_ideal_cell_is_centralised_training(small, tmp_path):
    values = small(clients={"count": 1}, cell="ideal", train={"rounds": 3, "local_steps": 20})
    run = airtune.run(Experiment(**values), tmp_path / "a")
    assert run.history["accuracy"].iloc[-1] > run.history["accuracy"].iloc[0] + 0.1
