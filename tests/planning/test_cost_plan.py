"""Plans of costs: what changes do, what a grid is, what stands in for learning."""

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised
from airtune.planning.changes import changes
from airtune.planning.cost_plan import parse_grid, plan_costs, sweep
from airtune.planning.rehearsal import rehearse, rounds_of
from airtune.planning.understudy import Understudy

CELL = {"bandwidth_hz": 1e6}


@pytest.fixture
def experiment(small):
    def described(**sections):
        return Experiment(**small(**{"cell": CELL} | sections))

    return described


def test_an_understudy_counts_the_tokens_of_training(experiment):
    described = experiment()
    tokens = []
    for learns in (Learner, Understudy):
        parts = build(described, learns=learns)
        data = parts.clients.data[1]
        task = Assignment(1, 2, dict(parts.model.initial), [Phase(data, supervised, 3)])
        assert [len(cohort) for cohort in parts.learner.train([task])] == [1]
        assert task.loss is not None
        assert any(not torch.equal(t, parts.model.initial[n]) for n, t in task.adapter.items())
        tokens.append(task.tokens)
    assert tokens[0] == tokens[1] > 0


def test_an_understudy_leaves_alone_what_does_not_train(experiment):
    parts = build(experiment(), learns=Understudy)
    phase = Phase(parts.clients.data[0], supervised, 1, ("*.lora_B.*",))
    task = Assignment(0, 1, dict(parts.model.initial), [phase])
    list(parts.learner.train([task]))
    for name, tensor in parts.model.initial.items():
        assert torch.equal(task.adapter[name], tensor) == (".lora_B." not in name)


def test_what_was_predicted_once_is_looked_up(experiment, monkeypatch):
    parts = build(experiment(), learns=Understudy)
    examples = parts.clients.kinds[0].pool
    some = examples.select(np.array([7, 2, 11]))

    def seen(asked):
        found = {}
        for each in parts.learner.predict({}, asked):
            for position, row, logits in zip(each.positions, each.rows, each.logits, strict=True):
                assert asked.rows[position] == row
                found[int(position)] = logits
        return torch.stack([found[position] for position in range(len(asked))])

    alone, whole = seen(some), seen(examples)
    monkeypatch.setattr(type(parts.model), "logits", None)  # nothing goes through the model
    assert torch.equal(seen(examples), whole)
    assert torch.equal(seen(some), whole[[7, 2, 11]])
    assert torch.allclose(alone, whole[[7, 2, 11]], atol=1e-5)


def test_half_the_rank_and_twice_the_band_do_what_they_must(experiment):
    steps = []
    found = plan_costs(experiment(train={"rounds": 2}), None, steps.append)
    assert len(steps) == 1 + len(found.changed)
    by_key = {next(iter(each.settings)): each.costs for each in found.changed}
    first = found.first
    assert by_key["method.value_type"].upload_bits.mean < 0.6 * first.upload_bits.mean
    assert by_key["adapter.rank"].upload_bits.mean < first.upload_bits.mean
    wide = by_key["cell.bandwidth_hz"]
    assert wide.upload_bits == first.upload_bits
    assert 0.4 < wide.airtime_s.mean / first.airtime_s.mean < 1.0
    few = by_key["train.local_steps"]
    assert few.compute_s.mean == pytest.approx(first.compute_s.mean / 2, rel=0.2)
    assert by_key["clients.per_round"].uplink_bits.mean == pytest.approx(
        first.uplink_bits.mean * 2 / 5
    )


def test_changes_are_those_that_an_experiment_allows(experiment):
    def keys(**sections):
        return {each.split("=")[0] for _, listed, _ in changes(experiment(**sections))
                for each in listed}  # fmt: skip

    common = {"train.local_steps", "clients.per_round", "cell.bandwidth_hz"}
    assert keys() == common | {"adapter.rank", "adapter.alpha", "method.value_type"}
    assert keys(adapter={"rank": 1}) == common | {"method.value_type"}
    assert keys(cell="ideal", method={"name": "fedavg", "value_type": "float16"}) == {
        "train.local_steps", "clients.per_round", "adapter.rank", "adapter.alpha"
    }  # fmt: skip
    assert "adapter.bottleneck" in keys(adapter={"kind": "bottleneck"})
    # soft knows 4 bits and 3, not 3.5; and its slices need no alpha.
    settings = [s for _, s, _ in changes(experiment(method={"name": "soft", "value_bits": 4}))]
    assert ["method.value_bits=3"] in settings


def test_many_rounds_are_judged_by_the_first(experiment):
    assert rounds_of(experiment(train={"rounds": 7})) == 7
    assert rounds_of(experiment(train={"rounds": 7000})) == 200  # of five uploads each
    assert rounds_of(experiment(train={"rounds": 7000}), 5) == 10


def test_a_pilot_is_the_beginning_of_the_run(experiment, tmp_path):
    import airtune

    described = experiment(method="adald_coded", data={"public_rows": 16})
    run = airtune.run(described, tmp_path / "run")
    rows = rehearse(described, 2, trains=True)
    bits = [row.bits for row in rows if hasattr(row, "client")]
    assert bits == run.uploads["bits"][run.uploads["round"] <= 2].tolist()


def test_a_grid_is_read_with_and_without_sections():
    assert parse_grid(["rank=4,8", "cell.bandwidth_hz=1e6, 5e6"]) == {
        "adapter.rank": ["4", "8"],
        "cell.bandwidth_hz": ["1e6", "5e6"],
    }
    for text, said in (
        ("rank", "key=value,value"),
        ("=4", "key=value,value"),
        ("rank=4,,8", "key=value,value"),
        ("alpha=1", "adapter.alpha or clients.alpha"),
    ):
        with pytest.raises(UserError, match=said):
            parse_grid([text])
    with pytest.raises(UserError, match="twice"):
        parse_grid(["rank=4", "adapter.rank=8"])
    with pytest.raises(UserError, match="too many"):
        parse_grid(["rank=" + ",".join(map(str, range(1, 102)))])


def test_a_sweep_goes_through_all_settings_and_names_the_impossible(experiment):
    base = experiment(train={"rounds": 2})
    grid = parse_grid(["rank=2,0", "cell.bandwidth_hz=1e6,1e7"])
    points = sweep(grid, base.changed, None, lambda step: None)
    assert [tuple(point.settings.values()) for point in points] == [
        ("2", "1e6"), ("2", "1e7"), ("0", "1e6"), ("0", "1e7")
    ]  # fmt: skip
    narrow, wide, *impossible = points
    assert narrow.costs.airtime_s.mean > 2 * wide.costs.airtime_s.mean
    assert narrow.run_seconds == pytest.approx(2 * narrow.costs.round_s.mean)
    assert all(each.costs is None and "adapter.rank" in each.problem for each in impossible)
    with pytest.raises(UserError, match=r"no setting is possible; adapter\.rank"):
        sweep({"adapter.rank": ["0"]}, base.changed, None, lambda step: None)
