"""Low-rank projections, against the inputs of the adapted maps as a hook sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.projections import Taps

TASKS = ["classification", "causal"]


def adapters(model, count):
    rng = torch.Generator().manual_seed(1)
    return [
        {n: v + 0.3 * torch.randn(v.shape, generator=rng) for n, v in model.initial.items()}
        for _ in range(count)
    ]


def adapted(model):
    """The adapted maps by their names, in the order of the model."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.module.named_modules()
        if isinstance(module, Linear)
    }


def inputs(model, batch):
    """What goes into each adapted map in a pass, and the pass's logits."""
    seen, hooks = {}, []
    for name, module in adapted(model).items():

        def note(module, args, output, name=name):
            seen[name] = args[0].double().numpy()

        hooks.append(module.base_layer.register_forward_hook(note))
    with torch.inference_mode():
        logits = model.logits(batch)
    for hook in hooks:
        hook.remove()
    return seen, logits


def batch_of(parts, rows):
    corpus = parts.clients.kinds[0].pool.corpus
    length = int(corpus.padded(corpus.lengths[rows].max()))
    assert (corpus.lengths[rows] < length).any(), "some texts must be padded"
    return corpus.batch(rows, length)


def lengths_apart(parts, count):
    """Rows whose lengths differ as much as they can."""
    order = np.argsort(parts.clients.kinds[0].pool.corpus.lengths, kind="stable")
    return order[np.linspace(0, len(order) - 1, count).astype(int)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("where", ["last", "all"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_projection_is_a_times_the_pooled_input_of_real_tokens(small, task, where, pooling):
    parts = build(Experiment(**small(task)))
    model, taps = parts.model, Taps(where, pooling)
    names = taps.names(list(model.taps))
    both = adapters(model, 2)
    model.slots.load(both)
    batch = batch_of(parts, lengths_apart(parts, 6))
    seen, plain = inputs(model, batch)
    with torch.inference_mode():
        logits, projections = model.tapped_logits(batch, taps)
    assert torch.equal(logits, plain)
    assert projections.shape == (6, len(names), 4)
    for row in range(6):
        real = batch["attention_mask"][row].bool().numpy()
        for tap, name in enumerate(names):
            a = both[row // 3][f"{name}.lora_A.weight"].double().numpy()
            tokens = seen[name][row][real]
            pooled = tokens.mean(0) if pooling == "mean" else tokens[-1]
            np.testing.assert_allclose(projections[row, tap], a @ pooled, rtol=1e-4, atol=1e-5)


def test_tokens_in_front_may_be_padding_too():
    """A tap's numbers say which text and token they are of."""
    read = torch.arange(12.0).view(1, 12, 1)
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    assert Taps(pooling="last").pooled(read, mask).flatten().tolist() == [2.0, 7.0, 11.0]
    assert Taps(pooling="mean").pooled(read, mask).flatten().tolist() == [1.5, 5.5, 11.0]


@pytest.mark.parametrize("task", TASKS)
def test_taps_are_at_the_last_adapted_map_or_that_of_each_layer(small, task):
    model = build(Experiment(**small(task))).model
    names = list(adapted(model))
    assert list(model.taps) == names
    assert len(names) > 2, "a layer must have several adapted maps"
    assert Taps("last").names(names) == names[-1:]
    layers = [[n for n in names if f".{layer}." in n][-1] for layer in (0, 1)]
    assert Taps("all").names(names) == layers


def test_names_by_hand():
    names = ["h.0.a", "h.0.b", "h.1.a", "h.1.b", "h.10.a", "head"]
    assert Taps("all").names(names) == ["h.0.b", "h.1.b", "h.10.a", "head"]
    assert Taps("last").names(names) == ["head"]
    assert Taps("last").names([]) == []


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_kept_afterwards_even_if_the_pass_fails(small, task, monkeypatch):
    parts = build(Experiment(**small(task)))
    model = parts.model
    model.slots.load([model.initial])
    batch = batch_of(parts, lengths_apart(parts, 3))

    def assert_closed():
        assert not any(tap.open for tap in model.taps.values())
        assert all(tap.read is None for tap in model.taps.values())

    model.tapped_logits(batch, Taps("all"))
    assert_closed()
    model.logits(batch)
    assert_closed()

    def fail(**ignored):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model, "_forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        model.tapped_logits(batch, Taps("all"))
    assert_closed()


def test_projections_have_gradients_in_a_and_below_and_none_in_the_last_b(small):
    parts = build(Experiment(**small("causal")))
    model = parts.model
    model.slots.load(adapters(model, 1))
    model.slots.train_only(model.slots.blocks)
    _, projections = model.tapped_logits(batch_of(parts, lengths_apart(parts, 3)), Taps())
    projections.square().sum().backward()
    (name,) = Taps().names(list(model.taps))
    parameters = model.slots.parameters
    assert parameters[f"{name}.lora_A.weight"].grad.abs().sum() > 0
    first = next(n for n in parameters if "lora_B" in n)
    assert parameters[first].grad.abs().sum() > 0
    last = parameters[f"{name}.lora_B.weight"].grad
    assert last is None or (last == 0).all()
