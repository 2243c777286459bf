"""The pull towards orthogonal components against NumPy, slot by slot."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from airtune.learning.orthogonality import Orthogonal
from airtune.learning.phase import Pass

SLOTS, RANK = 3, 4
SIZES = {"x.q": (6, 5), "x.v": (5, 9)}  # d_in, d_out
FORMS = ["off_diagonal", "literal"]


def adapters(seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    made = {"head.weight": rng.standard_normal((SLOTS, 2, 5))}
    for matrix, (d_in, d_out) in SIZES.items():
        made[f"{matrix}.lora_A.weight"] = rng.standard_normal((SLOTS, RANK, d_in))
        made[f"{matrix}.lora_B.weight"] = rng.standard_normal((SLOTS, d_out, RANK))
    return {name: torch.from_numpy(values).to(dtype) for name, values in made.items()}


def by_hand(adapter, slot, form):
    total = 0.0
    for matrix in SIZES:
        a = adapter[f"{matrix}.lora_A.weight"][slot].detach().numpy()
        b = adapter[f"{matrix}.lora_B.weight"][slot].detach().numpy()
        for vectors in (list(a), list(b.T)):
            for i, one in enumerate(vectors):
                for j, other in enumerate(vectors):
                    target = float(i == j) if form == "literal" else 0.0
                    if form == "literal" or i != j:
                        total += (np.dot(one, other) - target) ** 2
    return total


@pytest.mark.parametrize("form", FORMS)
def test_each_slot_has_its_own_penalty(form):
    made = adapters()
    found = Orthogonal(0.3, form).penalty(made)
    assert found.shape == (SLOTS,)
    assert found.tolist() == pytest.approx([by_hand(made, slot, form) for slot in range(SLOTS)])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form):
    made = adapters()
    for tensor in made.values():
        tensor.requires_grad_()
    Orthogonal(1.0, form).penalty(made).sum().backward()
    assert made["head.weight"].grad is None
    rng = np.random.default_rng(1)
    for name in (n for n in made if "lora" in n):
        slot, i, j = (int(rng.integers(size)) for size in made[name].shape)
        ends = []
        for shift in (1e-5, -1e-5):
            moved = {each: tensor.detach().clone() for each, tensor in made.items()}
            moved[name][slot, i, j] += shift
            ends.append(by_hand(moved, slot, form))
        slope = (ends[0] - ends[1]) / 2e-5
        assert float(made[name].grad[slot, i, j]) == pytest.approx(slope, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_slots_do_not_see_each_other(form):
    made, penalty = adapters(), Orthogonal(1.0, form).penalty
    for tensor in made.values():
        tensor.requires_grad_()
    before = penalty(made)
    before[1].backward()
    for name in (n for n in made if "lora" in n):
        assert made[name].grad[1].any()
        assert not made[name].grad[[0, 2]].any()
    other = {name: tensor.detach().clone() for name, tensor in made.items()}
    for tensor in other.values():
        tensor[0] *= 7.0
    assert torch.equal(penalty(other)[1:], before[1:].detach())
    assert penalty(other)[0] != before[0]


def test_lengths_are_left_alone_by_the_form_that_is_recommended():
    basis = {name: torch.zeros_like(tensor) for name, tensor in adapters().items()}
    for name in (n for n in basis if "lora" in n):
        eye = torch.eye(*basis[name].shape[1:], dtype=torch.float64)
        basis[name][:] = eye * torch.tensor([1.0, 2.0, 5.0])[:, None, None]
    assert Orthogonal(1.0).penalty(basis).tolist() == [0.0] * SLOTS
    # Literally, each of 4 factors' 4 components misses length one by (length^2 - 1)^2.
    assert Orthogonal(1.0, "literal").penalty(basis).tolist() == [0, 16 * 9, 16 * 24**2]


def test_a_b_of_zeros_costs_its_rank_literally_and_nothing_otherwise():
    made = adapters()
    for name in made:
        if ".lora_A." in name:
            made[name][:] = torch.eye(*made[name].shape[1:], dtype=torch.float64)
        else:
            made[name].zero_()
    assert Orthogonal(1.0).penalty(made).tolist() == [0.0] * SLOTS
    assert Orthogonal(1.0, "literal").penalty(made).tolist() == [2.0 * RANK] * SLOTS


@pytest.mark.parametrize("form", FORMS)
def test_descent_on_the_penalty_makes_components_orthogonal(form):
    made = {name: 0.5 * tensor for name, tensor in adapters().items()}
    objective = Orthogonal(1.0, form)
    for tensor in made.values():
        tensor.requires_grad_()
    first = objective.penalty(made).detach()
    for _ in range(300):
        loss = objective.penalty(made).sum()
        grads = torch.autograd.grad(loss, [t for n, t in made.items() if "lora" in n])
        with torch.no_grad():
            moved = zip((t for n, t in made.items() if "lora" in n), grads, strict=True)
            for tensor, grad in moved:
                tensor -= 0.01 * grad
    assert (objective.penalty(made) < 1e-2 * first).all()


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_the_loss_is_cross_entropy_and_the_weighted_penalty(weight):
    made = adapters(dtype=torch.float32)
    logits = torch.randn(2 * SLOTS, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    model = SimpleNamespace(logits=lambda batch: logits, slots=SimpleNamespace(active=lambda: made))
    losses = Orthogonal(weight)(Pass(model, {"labels": labels}, SLOTS))
    for slot in range(SLOTS):
        rows = slice(2 * slot, 2 * slot + 2)
        task = functional.cross_entropy(logits[rows], labels[rows])
        expected = float(task) + weight * by_hand(made, slot, "off_diagonal")
        assert float(losses[slot]) == pytest.approx(expected, rel=1e-5)


def test_equal_objectives_compare_equal_so_that_clients_share_passes():
    assert Orthogonal(0.1) == Orthogonal(0.1, "off_diagonal")
    assert Orthogonal(0.1) != Orthogonal(0.1, "literal")
    assert hash(Orthogonal(0.1)) == hash(Orthogonal(0.1))
