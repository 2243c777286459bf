"""A shift is what an edited base weight would be, for those who carry it and for nobody else."""

import numpy as np
import peft
import pytest
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from airtune import keyed
from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning import low_rank
from airtune.learning.config import MachineConfig
from airtune.learning.export import write_adapter
from airtune.learning.learner import Assignment, Learner
from airtune.learning.low_rank import factors, matrices
from airtune.learning.phase import Phase, supervised
from airtune.learning.shifts import Shift, absorbed, shift_name, shifts, without_shifts
from airtune.learning.slot_modules import ActiveSlots, SlotLinear, Tap
from airtune.learning.slot_modules import low_rank as low_rank_map

PREFIX = "base_model.model."


def shifted(adapter, seed, rank=None, size=0.2):
    """The adapter with random shifts, of full rank or a lower one."""
    draw = torch.Generator().manual_seed(seed)
    carried = dict(adapter)
    for matrix in matrices(adapter):
        a, b = factors(adapter, matrix)
        shift = size * torch.randn(len(b), a.shape[1], generator=draw)
        if rank is not None:
            left = torch.randn(len(b), rank, generator=draw)
            shift = size * left @ torch.randn(rank, a.shape[1], generator=draw)
        carried[shift_name(matrix)] = shift
    return carried


def noisy(parts):
    """The initial adapter, all moved: a head that is zero would hide what lies below."""
    draw = torch.Generator().manual_seed(9)
    return {
        n: t + 0.3 * torch.randn(t.shape, generator=draw) for n, t in parts.model.initial.items()
    }


def trained(parts, cohort, adapters, steps=3, **machine):
    config = MachineConfig(cohort=cohort, **machine)
    learner = Learner(parts.model, parts.learner.config, 0, config)
    tasks = [
        Assignment(c, 1, dict(adapter), [Phase(parts.clients.data[c], supervised, steps)])
        for c, adapter in enumerate(adapters)
    ]
    list(learner.train(tasks))
    return tasks


def equal(one, other):
    return all(torch.equal(one[n], other[n]) for n in one)


def edit(model, adapter):
    """Add the shifts to a plain model's own weights."""
    with torch.no_grad():
        for matrix, shift in shifts(adapter).items():
            model.get_submodule(matrix).weight += shift


def batch_of(parts, rows=4):
    return parts.evaluator._test.batch(np.arange(rows))


def logits(parts, adapter):
    parts.model.slots.load([adapter])
    with torch.no_grad():
        return parts.model.logits(batch_of(parts))


@pytest.mark.parametrize("top_layers", [None, 1])  # with and without a frozen prefix
def test_training_equals_plain_peft_on_an_edited_base(small, tiny_llama, top_layers):
    """The oracle knows nothing of shifts: peft's own model, whose base weights were changed."""
    parts = build(Experiment(**small("causal", adapter={"top_layers": top_layers})))
    assert (parts.model.prefix is None) == (top_layers is None)
    start = shifted(parts.model.initial, 0)
    (task,) = trained(parts, 1, [start], steps=4, prefix_cache_gb=1.0)

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    edit(model, start)
    layers = None if top_layers is None else [1]
    config = peft.LoraConfig(r=4, lora_alpha=16, layers_to_transform=layers)
    model = peft.get_peft_model(model, config).eval()
    weights = {
        name.removeprefix(PREFIX).replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert set(weights) == set(parts.model.initial)
    for name, parameter in weights.items():
        parameter.data.copy_(start[name])
    optimiser = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)
    data = parts.clients.data[0]
    rng = keyed.generator(0, "batches", 1, 0, 0)
    order = np.concatenate([rng.permutation(len(data)) for _ in range(4)])
    for step in range(4):
        loss = model(**data.batch(order[8 * step : 8 * step + 8])).loss
        assert task.losses[step] == pytest.approx(loss.item(), abs=2e-5)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), parts.learner.config.clip_norm or 1e9)
        optimiser.step()
    for name, parameter in weights.items():
        assert torch.allclose(parameter, task.adapter[name], atol=5e-6), name
    (without,) = trained(parts, 1, [parts.model.initial], steps=4, prefix_cache_gb=1.0)
    assert abs(without.losses[0] - task.losses[0]) > 1e-3


def test_a_shift_stays_what_it_was_and_trains_nothing(small):
    parts = build(Experiment(**small()))
    start = shifted(parts.model.initial, 0)
    before = {name: tensor.clone() for name, tensor in start.items()}
    base = {n: p.clone() for n, p in parts.backbone.module.named_parameters()}
    (task,) = trained(parts, 1, [start])
    assert set(task.adapter) == set(start)
    for matrix, shift in shifts(task.adapter).items():
        assert shift is start[shift_name(matrix)]
        assert torch.equal(shift, before[shift_name(matrix)])
        assert shift.grad is None
    assert not set(parts.model.slots.shapes) & {shift_name(m) for m in shifts(start)}
    assert all(torch.equal(p, base[n]) for n, p in parts.backbone.module.named_parameters())


@pytest.mark.parametrize("task", ["classification", "causal"])
def test_cohorts_with_one_shift_have_the_bytes_of_one_by_one(small, task):
    values = small(
        task,
        clients={"partition": "quantity", "alpha": 0.7},
        train={"batch_size": 16},
    )
    parts = build(Experiment(**values))
    start = shifted(parts.model.initial, 0)
    alone = trained(parts, 1, [start] * 5)
    for cohort in (3, 5):
        together = trained(parts, cohort, [start] * 5)
        for one, other in zip(alone, together, strict=True):
            assert one.losses == other.losses
            assert equal(one.adapter, other.adapter)


def test_tasks_with_different_shifts_do_not_mix(small):
    """Two shifts, equal values in another tensor, and none: each has what it has alone."""
    parts = build(Experiment(**small()))
    plain = noisy(parts)
    one, two = shifted(plain, 1), shifted(plain, 2)
    copy = {name: tensor.clone() for name, tensor in one.items()}
    starts = [one, two, plain, copy, one]
    alone = []
    for client, start in enumerate(starts):
        own = [plain] * client + [start]
        alone.append(trained(parts, 1, own)[client])
    together = trained(parts, 5, starts)
    for single, task in zip(alone, together, strict=True):
        assert single.losses == task.losses
        assert equal(single.adapter, task.adapter)
    # On one client's data the shifts are what differs.
    first = [trained(parts, 1, [start])[0].losses for start in starts]
    assert first[0] == first[3] == first[4]
    assert len({losses[0] for losses in first}) == 3


def test_who_comes_after_does_not_see_the_shifts_of_the_one_before(small):
    parts = build(Experiment(**small()))
    plain = noisy(parts)
    test = parts.evaluator._test
    expected, score = logits(parts, plain), parts.learner.evaluate(plain, test)
    moved = shifted(plain, 0)
    assert (logits(parts, moved) - expected).abs().max() > 1e-3
    assert torch.equal(logits(parts, plain), expected)
    other = parts.learner.evaluate(moved, test)
    again = parts.learner.evaluate(plain, test)
    assert not np.allclose(other.loss, score.loss, atol=1e-4)
    assert np.array_equal(again.loss, score.loss)
    # A part of the maps alone: the others lose theirs.
    (first, *_) = matrices(plain)
    partly = plain | {shift_name(first): moved[shift_name(first)]}
    got = logits(parts, partly)
    logits(parts, moved)
    assert torch.equal(logits(parts, partly), got)


def test_shifts_that_differ_in_a_pass_or_have_no_map_are_errors(small):
    parts = build(Experiment(**small()))
    plain = parts.model.initial
    with pytest.raises(ValueError, match="the same tensors"):
        parts.model.slots.load([shifted(plain, 0), plain])
    with pytest.raises(ValueError, match="not an adapted linear one"):
        parts.model.slots.load([plain | {"nowhere.shift": torch.zeros(2, 2)}])


def test_beside_bfloat16_weights_a_shift_keeps_its_precision():
    """Written into such weights, a shift below their spacing would be lost."""
    down, up = (SlotLinear(nn.Linear(4, 4, bias=False), ActiveSlots()) for _ in range(2))
    nn.init.zeros_(up.weight)
    weight = torch.full((4, 4), 1.0, dtype=torch.bfloat16)
    shift = torch.full((4, 4), 1e-3)
    assert torch.equal(weight + shift.to(torch.bfloat16), weight)
    place = Shift(torch.device("cpu"))
    forward = low_rank_map(lambda x: functional.linear(x, weight), down, up, 1.0, Tap(), place)
    x = torch.tensor([[1.0, -1.0, 1.0, -0.98]], dtype=torch.bfloat16)  # W x is small, and exact
    before = forward(x).float()
    place.weight = 100.0 * shift * torch.tensor([1.0, -1.0, 1.0, -1.0])
    moved = forward(x)
    assert moved.dtype == torch.bfloat16
    expected = before + x.float() @ place.weight.mT
    assert torch.allclose(moved.float(), expected, rtol=2**-8)
    assert (moved.float() - before).abs().min() > 0.3


def test_a_bfloat16_decoder_trains_beside_a_shift(small):
    half = build(Experiment(**small("causal", model={"dtype": "bfloat16"})))
    full = build(Experiment(**small("causal")))
    start = shifted(half.model.initial, 0)
    exact = trained(full, 5, [start] * 5)
    for cohort in (1, 5):
        for one, other in zip(trained(half, cohort, [start] * 5), exact, strict=True):
            assert one.losses == pytest.approx(other.losses, rel=0.02)
            assert not one.diverged


def test_absorbed_factors_are_the_product_and_the_shift():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 8, generator=draw), torch.randn(6, 3, generator=draw)
    low = torch.randn(6, 2, generator=draw) @ torch.randn(2, 8, generator=draw)
    adapter = {"x.lora_A.weight": a, "x.lora_B.weight": b, "head.weight": a}
    for shift, rank in ((low, 2), (torch.randn(6, 8, generator=draw), 6), (0.0 * low, 0)):
        found = absorbed(adapter | {"x.shift": shift}, scale=2.5)
        assert set(found) == set(adapter)
        more_a, more_b = found["x.lora_A.weight"], found["x.lora_B.weight"]
        assert more_a.shape == (3 + rank, 8)
        expected = 2.5 * b.numpy().astype(float) @ a.numpy() + shift.numpy()
        got = 2.5 * more_b.numpy().astype(float) @ more_a.numpy()
        assert np.allclose(got, expected, atol=1e-5)


def test_the_best_factors_of_a_matrix_leave_what_its_small_singular_values_say():
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 5, generator=draw)
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    for rank in range(1, 6):
        a, b = low_rank.decomposed(matrix, rank)
        left = np.linalg.norm(matrix.numpy() - b.numpy() @ a.numpy())
        assert left == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-5)
        assert torch.allclose(a.norm(dim=1), b.norm(dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("task", "adapter", "rank"),
    [
        ("classification", {}, None),
        ("classification", {"rank": 3, "alpha": 7, "top_layers": 1}, 2),
        ("causal", {"targets": ["q_proj", "down_proj"]}, None),
        ("causal", {"rank": 3}, 1),
    ],
)
def test_plain_peft_loads_an_exported_adapter_with_shifts(
    small, tiny_encoder, tiny_llama, tmp_path, task, adapter, rank
):
    model = {"pooling": "native"} if task == "classification" else {}
    parts = build(Experiment(**small(task, adapter=adapter, model=model)))
    carried = shifted(noisy(parts), 0, rank)
    del carried[next(n for n in carried if n.endswith(".shift"))]  # not all maps need to be shifted
    write_adapter(parts.model, carried, parts.table.classes, tmp_path)
    if task == "causal":
        base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    else:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=8)
    plain = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = batch_of(parts)
    expected = logits(parts, carried)
    with torch.no_grad():
        got = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(got, expected, atol=1e-5)
    assert (expected - logits(parts, without_shifts(carried))).abs().max() > 1e-3
    ranks = {len(p) for n, p in plain.named_parameters() if "lora_A" in n}
    assert min(ranks) == parts.model.config.rank < max(ranks)
