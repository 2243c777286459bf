"""Coded changes: what comes back is what was meant, at what it should cost, and nothing else."""

import math

import numpy as np
import pytest
import torch

from airtune.wire import CodedChanges, Grid, WireError, coded_bits, container, decode, encode

SHAPES = {"slices.q": (4, 30, 20), "slices.v": (4, 50), "scores": (3,), "head.bias": (2,)}
EXTENTS = {"q": (4, 50), "v": (4, 50)}


def changes(seed=0, count=100, **more):
    draw = torch.Generator().manual_seed(seed)
    flat = torch.randn(400, generator=draw)
    order = flat.abs().argsort(descending=True)
    levels, grid = Grid.of_largest(flat, order, count)
    q, v = levels.split(200)
    return flat, CodedChanges({"q": q.view(4, 50), "v": v.view(4, 50)}, grid, **more)


@pytest.mark.parametrize("count", [1, 7, 100, 400])
def test_the_largest_values_stay_within_half_a_step_of_what_they_were(count):
    flat, sent = changes(count=count)
    back = decode(encode(sent), SHAPES)
    values = torch.cat([back.slices["q"].reshape(-1), back.slices["v"].reshape(-1)])
    kept = torch.zeros(400, dtype=torch.bool)
    kept[np.argsort(-flat.abs().numpy())[:count].copy()] = True
    assert torch.equal(values != 0, kept)
    assert bool((values[kept].sign() == flat[kept].sign()).all())
    # Thresholds lie half a step around a level, but for what would be zero; the offset moves what
    # a level stands for.
    away = 1.0 if count == 400 else 0.5
    limit = away * sent.grid.step + abs(sent.grid.offset) + 1e-6
    assert float((values[kept] - flat[kept]).abs().max()) <= limit
    # Magnitudes are right on average.
    assert math.isclose(float(values.abs().sum()), float(flat[kept].abs().sum()), rel_tol=1e-5)


def test_what_the_sender_sees_is_what_the_receiver_reads_to_the_bit():
    _, sent = changes(scores=torch.tensor([0.5, 0.25, 0.25]), tensors={"head.bias": torch.ones(2)})
    back = decode(encode(sent), SHAPES)
    assert all(torch.equal(back.levels[name], sent.levels[name]) for name in EXTENTS)
    assert all(torch.equal(back.slices[name], sent.slices[name]) for name in EXTENTS)
    assert torch.equal(back.scores, sent.scores)
    assert torch.equal(back.tensors["head.bias"], torch.ones(2))
    assert bool(back.kept.all()) and len(back.kept) == 8


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_coder_comes_close_to_the_entropy(share):
    draw = torch.Generator().manual_seed(1)
    flat = torch.randn(40_000, generator=draw)
    levels, grid = Grid.of_largest(flat, flat.abs().argsort(descending=True), int(share * 40_000))
    sent = CodedChanges({"q": levels.view(4, -1)}, grid)
    sizes, counts = np.unique(levels.abs().numpy(), return_counts=True)
    entropy = -(counts * np.log2(counts / 40_000)).sum() + counts[sizes > 0].sum()
    assert math.isclose(coded_bits(levels), entropy, rel_tol=1e-9)
    bits = 8 * len(encode(sent))
    assert entropy < bits < 1.05 * entropy + 1000  # the container, and counts that learn


def test_one_value_for_all_costs_a_sign_each_and_comes_back_exactly():
    """As after a single step of Adam."""
    flat = torch.where(torch.arange(400) % 3 == 0, -0.01, 0.01)
    order = flat.abs().argsort(descending=True, stable=True)
    levels, grid = Grid.of_largest(flat, order, 400)
    assert torch.allclose(grid.values(levels), flat, rtol=1e-6, atol=0)
    half, _ = Grid.of_largest(flat, order, 200)
    assert torch.equal(half != 0, torch.arange(400) < 200)


def test_nothing_learned_is_nothing_but_readable():
    levels, grid = Grid.of_largest(torch.zeros(400), torch.arange(400), 100)
    assert int(levels.abs().sum()) == 0 and (grid.step, grid.offset) == (0.0, 0.0)
    _, sent = changes()
    empty = CodedChanges({name: torch.zeros(e).long() for name, e in EXTENTS.items()}, grid)
    assert len(encode(empty)) < len(encode(sent))
    back = decode(encode(empty), SHAPES)
    assert all(bool((each == 0).all()) for each in back.slices.values())


def altered(**arrays):
    _, sent = changes()
    _, own = sent.to_arrays()
    return container.pack(CodedChanges.kind, {}, {**own, **arrays})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"g": torch.tensor([math.inf, 0.0])}, "grid is not finite"),
        ({"g": torch.tensor([1.0])}, "no grid"),
        ({"m": torch.tensor([3.0])}, "no grid"),
        ({"d": torch.zeros(2, 2, dtype=torch.uint8)}, "no grid"),
        ({"w": torch.zeros(3)}, "scores"),
        ({"whole.other": torch.zeros(2)}, "other"),
    ],
)
def test_other_messages_are_refused(arrays, words):
    with pytest.raises(WireError, match=words):
        decode(altered(**arrays), SHAPES)


def test_bytes_that_nobody_wrote_are_refused_or_are_levels_that_could_be():
    draw = np.random.default_rng(0)
    for size in (0, 1, 40, 400):
        noise = torch.from_numpy(draw.integers(0, 256, size).astype(np.uint8))
        try:
            back = decode(altered(d=noise, m=torch.tensor([5], dtype=torch.uint8)), SHAPES)
        except WireError:
            continue
        assert {name: tuple(each.shape) for name, each in back.levels.items()} == EXTENTS
        assert max(int(each.abs().max()) for each in back.levels.values()) <= 5


def test_a_method_without_matrices_does_not_take_them():
    _, sent = changes()
    with pytest.raises(WireError, match="not part of"):
        decode(encode(sent), {"head.bias": (2,)})


def test_zeros_among_the_largest_stay_zero_and_the_others_are_sent():
    flat = torch.zeros(400)
    flat[:50] = torch.linspace(0.5, 2.0, 50)
    levels, grid = Grid.of_largest(flat, flat.abs().argsort(descending=True, stable=True), 300)
    assert torch.equal(levels != 0, flat != 0)
    limit = 0.5 * grid.step + abs(grid.offset) + 1e-6
    assert float((grid.values(levels) - flat).abs().max()) <= limit


def test_bytes_behind_the_last_value_are_refused():
    _, sent = changes()
    data = sent.to_arrays()[1]["d"]
    longer = torch.cat([data, torch.full((100,), 7, dtype=torch.uint8)])
    with pytest.raises(WireError, match="more bytes"):
        decode(altered(d=longer), SHAPES)


def test_whatever_the_message_its_end_is_recognised():
    """Zeros at the end are left out of the bytes, and a last word may be nearly full."""
    for seed in range(200):
        _, sent = changes(seed, count=1 + 2 * seed % 390)
        assert torch.equal(decode(encode(sent), SHAPES).levels["q"], sent.levels["q"])
