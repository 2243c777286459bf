"""Hidden states that are looked up are those that would be computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning import prefix
from airtune.learning.config import MachineConfig
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Made, Phase, supervised


def trained(parts, gigabytes, cohort=3):
    machine = MachineConfig(cohort=cohort, prefix_cache_gb=gigabytes)
    learner = Learner(parts.model, parts.learner.config, 0, machine)
    tasks = [
        Assignment(c, 1, dict(parts.model.initial), [Phase(parts.clients.data[c], supervised, 4)])
        for c in range(5)
    ]
    list(learner.train(tasks))
    return tasks, learner


@pytest.fixture
def counted(monkeypatch):
    """Rows whose lower layers were computed, one entry a block."""
    rows = []
    compute = prefix.FrozenPrefix.compute

    def counting(self, batch):
        rows.append(len(batch["input_ids"]))
        return compute(self, batch)

    monkeypatch.setattr(prefix.FrozenPrefix, "compute", counting)
    return rows


@pytest.mark.parametrize("task", ["classification", "causal"])
@pytest.mark.parametrize("gigabytes", [1.0, 1e-9])  # in memory; in a mapped file
def test_training_and_evaluation_are_equal_to_1e_5(small, counted, task, gigabytes):
    values = small(task, adapter={"top_layers": 1}, clients={"partition": "quantity"})
    parts = build(Experiment(**values))
    parts.backbone.hidden.clear()
    plain, without = trained(parts, 0.0)
    counted.clear()
    cached, learner = trained(parts, gigabytes)
    assert counted, "the cache was not used"
    assert len({data.padded_lengths(np.arange(1)).item() for data in parts.clients.data}) > 1
    for one, other in zip(plain, cached, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-5)
        for name, value in one.adapter.items():
            assert torch.allclose(value, other.adapter[name], atol=1e-5), name
    scores = [
        each.evaluate(cached[0].adapter, parts.clients.data[0]) for each in (without, learner)
    ]
    assert np.allclose(scores[0].loss, scores[1].loss, atol=1e-5)


def test_each_text_is_computed_once(small, counted):
    parts = build(Experiment(**small(adapter={"top_layers": 1})))
    parts.backbone.hidden.clear()
    counted.clear()
    tasks, learner = trained(parts, 1.0)
    once = sum(counted)
    assert 0 < once <= sum(len(data) for data in parts.clients.data)
    list(learner.train(tasks))
    assert sum(counted) == once


def test_the_next_run_takes_what_it_would_compute_among_the_same_texts(small, counted):
    first = build(Experiment(**small(adapter={"top_layers": 1})))
    first.backbone.hidden.clear()
    counted.clear()
    tasks, _ = trained(first, 1.0)
    once = sum(counted)
    assert once > 0
    second = build(Experiment(**small(adapter={"top_layers": 1})))
    counted.clear()
    again, _ = trained(second, 1.0)
    assert counted == []
    # Other clients have other blocks, whose states differ in their last digits.
    other = small(adapter={"top_layers": 1}, clients={"count": 7})
    third = build(Experiment(**other))
    counted.clear()
    mixed, _ = trained(third, 1.0)
    assert counted
    third.backbone.hidden.clear()
    fresh, _ = trained(build(Experiment(**other)), 1.0)
    for one, two in zip([*tasks, *mixed], [*again, *fresh], strict=True):
        assert all(torch.equal(one.adapter[n], two.adapter[n]) for n in one.adapter)


def test_states_of_earlier_runs_keep_to_the_limit(small, data_files):
    parts = build(Experiment(**small(adapter={"top_layers": 1})))
    kept = parts.backbone.hidden
    kept.clear()
    trained(parts, 1.0)
    (states,) = kept.values()
    room = states.values.numel() * states.values.itemsize
    other = small(adapter={"top_layers": 1}, data={"train": data_files[1]})
    trained(build(Experiment(**other)), 1.1 * room / 1e9)
    assert [each is states for each in kept.values()] == [False]
    trained(parts, 1e-9)  # mapped, so not kept
    assert len(kept) == 1


def test_texts_cut_elsewhere_are_other_texts(small):
    """The same tokens under another limit are padded to another length."""
    runs = {}
    for limit in (12, 16):
        parts = build(Experiment(**small(adapter={"top_layers": 1}, model={"max_tokens": limit})))
        parts.backbone.hidden.clear()
        runs[limit], _ = trained(parts, 1.0)
    parts = build(Experiment(**small(adapter={"top_layers": 1}, model={"max_tokens": 12})))
    after, _ = trained(parts, 1.0)  # behind the run with 16
    assert len(parts.backbone.hidden) == 2
    for one, two in zip(runs[12], after, strict=True):
        assert all(torch.equal(one.adapter[n], two.adapter[n]) for n in one.adapter)


def test_data_that_a_phase_made_leaves_no_states_behind(small):
    parts = build(Experiment(**small("causal", adapter={"top_layers": 1})))
    parts.backbone.hidden.clear()
    data = parts.clients.data

    def again(model, drafts):
        """Each client's own texts in a corpus of its own."""
        del model
        return [
            Made(replace(d.data, corpus=replace(d.data.corpus, tokens=d.data.corpus.tokens.copy())),
                 0)
            for d in drafts
        ]  # fmt: skip

    for gigabytes in (1.0, 1e-9):
        machine = MachineConfig(cohort=3, prefix_cache_gb=gigabytes)
        learner = Learner(parts.model, parts.learner.config, 0, machine)
        phases = [Phase(data[0], supervised, 1, maker=again)] * 3
        tasks = [Assignment(c, 1, dict(parts.model.initial), phases) for c in range(3)]
        list(learner.train(tasks))
        cache = learner._inputs._cache
        assert cache.seconds > 0.0
        assert (cache._states, cache._tokens, cache._in_memory) == ({}, [], 0)
        assert not parts.backbone.hidden


def test_the_bytes_do_not_depend_on_cohort_or_order(small):
    parts = build(Experiment(**small(adapter={"top_layers": 1})))
    alone, _ = trained(parts, 1.0, cohort=1)
    together, _ = trained(parts, 1.0, cohort=5)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


def test_there_is_none_where_the_lowest_layer_trains(small):
    assert build(Experiment(**small())).model.prefix is None
    assert build(Experiment(**small(adapter={"top_layers": 2}))).model.prefix is None


class Tower(nn.Module):
    def __init__(self, early):
        super().__init__()
        self.table, self.early = nn.Embedding(4, 8), nn.Linear(8, 8) if early else None
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.dropout = nn.Dropout(0.0)

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        x = x if self.early is None else self.early(x)
        for layer in self.layers:
            x = layer(x)
        return self.dropout(x)


def test_there_is_none_with_a_trainable_part_below_or_in_training_mode():
    assert prefix.find_prefix(Tower(early=False).eval(), ["layers.2.weight"]) is not None
    trained_early = ["early.weight", "layers.2.weight"]
    assert prefix.find_prefix(Tower(early=True).eval(), trained_early) is None
    assert prefix.find_prefix(Tower(early=False).train(), ["layers.2.weight"]) is None


def test_too_little_disk_is_said_before_it_hurts(monkeypatch):
    monkeypatch.setattr(prefix.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"prefix_cache_gb: .* TMPDIR, or give 0"):
        prefix._mapped((1000, 1000), torch.float32)


def test_top_layers_beyond_the_model_and_kinds_without_are_refused(small):
    with pytest.raises(UserError, match=r"adapter.top_layers: 3 asked for.*2 layers"):
        build(Experiment(**small(adapter={"top_layers": 3})))
    with pytest.raises(UserError, match="top_layers does not work with kind: ia3"):
        Experiment(**small(adapter={"top_layers": 1, "kind": "ia3"}))
