"""A client's mix of classes becomes a bias, which the model adds and an export has in its head."""

import math
import re
import sys

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.config import MachineConfig
from airtune.learning.export import write_adapter
from airtune.learning.label_bias import LABEL_BIAS, absorbed, concentration, label_bias
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised

BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4}


def likelihood(counts, a):
    """Of Dirichlet-multinomial counts, its logarithm but for what a does not change."""
    whole = a * len(counts)
    each = sum(math.lgamma(a + n) - math.lgamma(a) for n in counts)
    return math.lgamma(whole) - math.lgamma(whole + sum(counts)) + each


@pytest.mark.parametrize("alpha", [0.1, 0.5, 3.0])
def test_no_other_concentration_is_likelier(alpha):
    draw = np.random.default_rng(3)
    counts = draw.multinomial(150, draw.dirichlet(np.full(12, alpha)))
    found = concentration(counts)
    assert alpha / 4 < found < 4 * alpha
    best = likelihood(counts, found)
    for other in np.exp(np.linspace(math.log(1e-3), math.log(1e4), 400)):
        assert likelihood(counts, other) <= best + 1e-9


@pytest.mark.parametrize("counts", [[0, 0, 0], [0, 1, 0], [40, 40, 40]])
def test_counts_that_tell_of_no_mix_give_no_bias(counts):
    assert label_bias(np.array(counts), 0.9).abs().max() < 1e-3


def test_the_bias_is_bayes_rule_for_the_mixture():
    """A posterior under even classes, times the bias' exponent, is that under the mixture."""
    counts, own = np.array([30, 9, 1, 0, 0]), 0.4
    a = concentration(counts)
    mix = (counts + a) / (40 + 5 * a)
    likelihoods = np.random.default_rng(0).random(5)  # p(x | c)
    wanted = likelihoods * (own * mix + (1 - own) / 5)
    even = likelihoods / likelihoods.sum()
    found = even * np.exp(label_bias(counts, own).numpy())
    assert found / found.sum() == pytest.approx(wanted / wanted.sum(), rel=1e-6)
    assert label_bias(counts, own).min() > math.log(1 - own)
    assert not label_bias(counts, 0.0).any()


def biased(parts, count=1):
    """Adapters that are not the initial one, each with a bias of its own."""
    draw, found = torch.Generator().manual_seed(5), []
    for _ in range(count):
        own = {
            n: t + 0.1 * torch.randn(t.shape, generator=draw)
            for n, t in parts.model.initial.items()
        }
        found.append({**own, LABEL_BIAS: torch.randn(parts.model.width, generator=draw)})
    return found


def said(parts, adapter, batch):
    parts.model.slots.load([adapter])
    with torch.no_grad():
        return parts.model.logits(batch)


def test_logits_have_the_bias_of_the_adapter_that_is_loaded_and_of_no_other(small):
    parts = build(Experiment(**small()))
    (own,) = biased(parts)
    batch = parts.clients.data[0].batch(np.arange(3))
    plain = said(parts, absorbed(own, None), batch)
    assert torch.equal(said(parts, own, batch), plain + own[LABEL_BIAS])
    assert torch.equal(said(parts, absorbed(own, None), batch), plain)


def test_a_bias_trains_as_a_part_of_the_heads_for_any_cohort(small):
    """Stochastic descent moves a head's bias by the same steps wherever it begins."""
    values = small(train={"optimiser": "sgd"}, clients={"partition": "quantity", "alpha": 0.7})
    parts = build(Experiment(**values))
    adapters = biased(parts, 3)

    def trained(adapters, cohort):
        learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=cohort))
        tasks = [
            Assignment(c, 1, dict(own), [Phase(parts.clients.data[c], supervised, 2 + c)])
            for c, own in enumerate(adapters)
        ]
        list(learner.train(tasks))
        return [task.adapter for task in tasks]

    alone, together = trained(adapters, 1), trained(adapters, 3)
    inside = trained([absorbed(own, "classifier.bias") for own in adapters], 3)
    for one, other, oracle, given in zip(alone, together, inside, adapters, strict=True):
        assert LABEL_BIAS not in one
        assert all(torch.equal(one[name], other[name]) for name in one)
        head = other["classifier.bias"] + given[LABEL_BIAS]
        assert torch.allclose(head, oracle["classifier.bias"], atol=1e-5)
        name = "classifier.weight"
        assert torch.allclose(other[name], oracle[name], atol=1e-5)


@pytest.mark.parametrize("prototypes", [None, 2], ids=["trained", "frozen"])
@pytest.mark.parametrize("adapter", [{}, BESIDE], ids=["lora", "beside"])
def test_an_export_has_it_in_its_head(small, tmp_path, monkeypatch, adapter, prototypes):
    values = small(adapter=adapter)
    values["model"] = {**values["model"], "prototypes": prototypes}
    parts = build(Experiment(**values))
    (own,) = biased(parts)
    write_adapter(parts.model, own, parts.table.classes, tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), flags=re.S)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("load", "base_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    namespace = {}
    exec(code.replace('"."', repr(str(tmp_path))), namespace)
    batch = parts.clients.data[0].batch(np.arange(3))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = namespace["model"](**inputs).logits
    assert torch.allclose(found, said(parts, own, batch), atol=1e-5)
    if prototypes:  # what is frozen belongs to everybody
        assert not parts.backbone.module.classifier.bias.any()
