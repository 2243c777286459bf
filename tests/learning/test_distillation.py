"""The loss of distillation, against torch's KL on dense tensors in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from airtune.learning.distillation import Distillation
from airtune.learning.projections import Taps

SLOTS, ROWS, WIDTH = 2, 3, 7


class Seen:
    """Stands for a pass: what a student says of a batch."""

    def __init__(self, logits, slots=SLOTS, own=None, constants=None, **batch):
        self.batch = {f"teacher_{name}": value for name, value in batch.items()}
        self.slots, self.constants = slots, constants or {}
        self.given, self.own = logits, own

    def logits(self):
        return self.given

    def logits_and_projections(self, taps):
        return self.given, self.own


def randn(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def entries(teacher, k):
    """The k largest in any order, with their places."""
    values, index = teacher.topk(k, dim=-1)
    order = torch.rand(values.shape, generator=torch.Generator().manual_seed(9)).argsort(-1)
    return {"values": values.gather(-1, order), "index": index.gather(-1, order)}


def divergence(teacher, student, tau):
    """tau^2 KL of each prediction, by torch, in float64."""
    wanted = functional.softmax(teacher.double() / tau, dim=-1)
    got = functional.log_softmax(student.double() / tau, dim=-1)
    return tau**2 * functional.kl_div(got, wanted, reduction="none").sum(-1)


def per_slot(each):
    return each.reshape(SLOTS, -1).mean(1)


def close(loss, expected):
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=1e-5)


SHAPES = [(SLOTS * ROWS, WIDTH), (SLOTS * ROWS, 4, WIDTH)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_all_entries_known_is_torchs_divergence(shape, tau):
    teacher, student = randn(*shape, seed=1), randn(*shape, seed=2)
    expected = per_slot(divergence(teacher, student, tau))
    close(Distillation(tau)(Seen(student, **entries(teacher, WIDTH))), expected)
    # A rest value says nothing where every entry is listed.
    rest = torch.full(shape[:-1], -1.0)
    close(Distillation(tau)(Seen(student, **entries(teacher, WIDTH), rest=rest)), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_some_entries_are_two_distributions_renormalised_among_them(shape, tau):
    teacher, student = randn(*shape, seed=3), randn(*shape, seed=4)
    known = entries(teacher, 3)
    chosen = student.gather(-1, known["index"])
    expected = per_slot(divergence(known["values"], chosen, tau))
    close(Distillation(tau)(Seen(student, **known)), expected)


@pytest.mark.parametrize("with_rest", [False, True])
def test_predictions_may_know_unequal_numbers_of_entries(with_rest):
    teacher, student = randn(6, WIDTH, seed=5), randn(6, WIDTH, seed=6)
    values, index = teacher.topk(5, dim=1)
    counts = [5, 1, 3, 2, 4, 1]
    each = []
    rest = randn(6, seed=7)
    for row, count in enumerate(counts):
        values[row, count:], index[row, count:] = -torch.inf, 0
        if with_rest:
            whole = torch.full((WIDTH,), float(rest[row]))
            whole[index[row, :count]] = values[row, :count]
            each.append(divergence(whole, student[row], 1.5))
        else:
            some = index[row, :count]
            each.append(divergence(teacher[row, some], student[row, some], 1.5))
    given = {"values": values, "index": index} | ({"rest": rest} if with_rest else {})
    close(Distillation(1.5)(Seen(student, **given)), per_slot(torch.stack(each)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_a_rest_value_stands_at_every_entry_that_is_not_listed(shape, tau):
    teacher, student = randn(*shape, seed=8), randn(*shape, seed=9)
    known, rest = entries(teacher, 3), randn(*shape[:-1], seed=10)
    whole = rest.unsqueeze(-1).expand(shape).clone().scatter_(-1, known["index"], known["values"])
    expected = per_slot(divergence(whole, student, tau))
    close(Distillation(tau)(Seen(student, **known, rest=rest)), expected)


def test_the_gradient_is_torchs_too():
    teacher, shape = randn(6, WIDTH, seed=11), (6, WIDTH)
    known, rest = entries(teacher, 3), randn(6, seed=12)
    whole = rest.unsqueeze(-1).expand(shape).clone().scatter_(-1, known["index"], known["values"])
    mine = randn(*shape, seed=13).requires_grad_()
    Distillation(2.0)(Seen(mine, **known, rest=rest)).sum().backward()
    torchs = mine.detach().double().requires_grad_()
    per_slot(divergence(whole, torchs, 2.0)).sum().backward()
    torch.testing.assert_close(mine.grad.double(), torchs.grad, rtol=1e-4, atol=1e-6)


def test_a_vocabulary_of_many_entries_keeps_its_precision():
    teacher, student = randn(4, 50_000, seed=14), randn(4, 50_000, seed=15)
    known = entries(teacher, 8)
    rest = known["values"].amin(1) - 2.0
    whole = rest[:, None].expand(4, 50_000).clone().scatter_(1, known["index"], known["values"])
    loss = Distillation(2.0)(Seen(student, **known, rest=rest))
    torch.testing.assert_close(
        loss.double(), per_slot(divergence(whole, student, 2.0)), rtol=1e-3, atol=1e-4
    )


def test_temperature_multiplies_by_its_square():
    """Values and logits of tau times the size have tau^2 times the loss of tau = 1."""
    teacher, student = randn(6, WIDTH, seed=16), randn(6, WIDTH, seed=17)
    one = Distillation(1.0)(Seen(student, **entries(teacher, 4)))
    hot = Distillation(3.0)(Seen(3.0 * student, **entries(3.0 * teacher, 4)))
    close(hot, 9.0 * one)


def test_a_divergence_by_hand():
    """Teacher (3/4, 1/4), student (1/2, 1/2): ln 2 - H."""
    values, index = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[2, 0]])
    loss = Distillation(1.0)(Seen(torch.zeros(1, 5), 1, values=values, index=index))
    assert float(loss) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


@pytest.mark.parametrize("with_rest", [False, True])
def test_predictions_of_which_nothing_is_known_take_no_part(with_rest):
    teacher, student = randn(6, 4, WIDTH, seed=18), randn(6, 4, WIDTH, seed=19).requires_grad_()
    known = entries(teacher, 3)
    heard = torch.rand(6, 4, generator=torch.Generator().manual_seed(20)) < 0.4
    heard[:, 3] = False
    known["values"][~heard], known["index"][~heard] = -torch.inf, 0
    if with_rest:
        known["rest"] = torch.where(heard, -1.0, -torch.inf)
    expected = []
    for slot in range(SLOTS):
        each = []
        for row, place in heard[3 * slot : 3 * slot + 3].nonzero().tolist():
            at = 3 * slot + row, place
            index = known["index"][at]
            if with_rest:
                whole = torch.full((WIDTH,), -1.0).scatter_(0, index, known["values"][at])
                each.append(divergence(whole, student[at], 2.0))
            else:
                each.append(divergence(known["values"][at], student[at][index], 2.0))
        expected.append(torch.stack(each).mean())
    loss = Distillation(2.0)(Seen(student, **known))
    close(loss.detach(), torch.stack(expected).detach())
    loss.sum().backward()
    assert (student.grad[~heard] == 0.0).all()
    assert (student.grad[heard] != 0.0).any()


@pytest.mark.parametrize("rest", [None, 0.0, -torch.inf])
def test_a_slot_that_knows_nothing_loses_nothing(rest):
    student = randn(6, WIDTH, seed=21).requires_grad_()
    own = randn(6, 2, 4, seed=22).requires_grad_()
    known = entries(randn(6, WIDTH, seed=23), 3)
    known["values"][:3], known["index"][:3] = -torch.inf, 0
    known["projections"] = randn(6, 2, 4, seed=24)
    known["projections"][:3] = torch.nan
    if rest is not None:
        known["rest"] = torch.full((6,), -1.0)
        known["rest"][:3] = rest
    loss = Distillation(2.0, 0.5, Taps())(Seen(student, own=own, **known))
    assert loss[0] == 0.0
    assert loss[1] > 0.0
    loss.sum().backward()
    for gradient in (student.grad, own.grad):
        assert torch.isfinite(gradient).all()
        assert (gradient[:3] == 0.0).all()
        assert (gradient[3:] != 0.0).any()


def test_a_rest_far_above_the_entries_does_not_spoil_gradients():
    """All entries known, so the rest stands for nothing; its exponential would overflow."""

    student = randn(2, WIDTH, seed=25).requires_grad_()
    known = entries(randn(2, WIDTH, seed=26) - 200.0, WIDTH)
    loss = Distillation(1.0)(Seen(student, **known, rest=torch.zeros(2)))
    own = student.detach().gather(1, known["index"])
    close(loss.detach(), divergence(known["values"], own, 1.0))
    loss.sum().backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("case", ["all", "some", "rest"])
def test_a_student_that_agrees_up_to_a_shift_has_nothing_to_learn(case):
    teacher = randn(6, WIDTH, seed=27)
    known = entries(teacher, WIDTH if case == "all" else 3)
    student = teacher + randn(6, 1, seed=28)
    if case == "rest":
        known["rest"] = known["values"].amin(1) - 2.0
        whole = known["rest"][:, None].expand(6, WIDTH).clone()
        student = whole.scatter_(1, known["index"], known["values"]) + randn(6, 1, seed=28)
    student.requires_grad_()
    loss = Distillation(2.0)(Seen(student, **known))
    assert loss.abs().max() < 1e-5
    loss.sum().backward()
    assert student.grad.abs().max() < 1e-5


def test_projections_add_their_mean_divergence_over_taps_and_texts():
    taps, rank, weight, tau = 2, 4, 0.3, 1.7
    student, known = randn(6, WIDTH, seed=29), entries(randn(6, WIDTH, seed=30), 3)
    own, target = randn(6, taps, rank, seed=31), randn(6, taps, rank, seed=32)
    target[1] = torch.nan
    alone = Distillation(2.0)(Seen(student, **known))
    objective = Distillation(2.0, weight, Taps(), tau)
    loss = objective(Seen(student, own=own, **known, projections=target))
    extra = by_loops(target, own, tau)
    np.testing.assert_allclose((loss - alone).numpy(), weight * extra, rtol=1e-4, atol=1e-6)


def test_projections_are_turned_by_each_slots_own_rotation():
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.standard_normal((SLOTS, 2, 4, 4)))[0]
    student, known = randn(6, WIDTH, seed=33), entries(randn(6, WIDTH, seed=34), 3)
    own, target = randn(6, 2, 4, seed=35), randn(6, 2, 4, seed=36)
    target[4, 1] = torch.nan
    turned = torch.empty(6, 2, 4)
    for text in range(6):
        for tap in range(2):
            # Rows on the left: h R, as the rotation was found.
            row = target[text, tap].numpy() @ turns[text // 3, tap]
            turned[text, tap] = torch.from_numpy(row)
    alone = Distillation(2.0)(Seen(student, **known))
    constants = {"rotation": torch.from_numpy(turns).float()}
    seen = Seen(student, own=own, constants=constants, **known, projections=target)
    loss = Distillation(2.0, 0.8, Taps(where="all"))(seen)
    expected = 0.8 * by_loops(turned, own, 1.0)
    np.testing.assert_allclose((loss - alone).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_slot_without_a_rotation_learns_no_projections():
    student, known = randn(6, WIDTH, seed=37), entries(randn(6, WIDTH, seed=38), 3)
    own = randn(6, 1, 4, seed=39).requires_grad_()
    turns = torch.eye(4).expand(SLOTS, 1, 4, 4).clone()
    turns[0] = torch.nan
    seen = Seen(student, own=own, constants={"rotation": turns}, **known, projections=-own.detach())
    loss = Distillation(2.0, 1.0, Taps())(seen)
    alone = Distillation(2.0)(Seen(student, **known))
    assert loss[0] == alone[0]
    assert loss[1] > alone[1]
    loss.sum().backward()
    assert (own.grad[:3] == 0.0).all()
    assert torch.isfinite(own.grad).all()


def test_projections_that_nobody_sent_leave_the_loss_of_logits():
    student, known = randn(6, WIDTH, seed=40), entries(randn(6, WIDTH, seed=41), 3)
    plain = Distillation(2.0)(Seen(student, **known))
    assert torch.equal(Distillation(2.0, 1.0, Taps())(Seen(student, **known)), plain)


def by_loops(target, own, tau):
    """Each slot's mean over texts that have projections and over taps, in float64."""
    target, own = target.double().numpy(), own.double().numpy()
    means = []
    for slot in range(SLOTS):
        gaps = []
        for text in range(3 * slot, 3 * slot + 3):
            for tap in range(own.shape[1]):
                if np.isnan(target[text, tap]).any():
                    continue
                p, q = (np.exp(h[text, tap] / tau) for h in (target, own))
                p, q = p / p.sum(), q / q.sum()
                gaps.append((p * np.log(p / q)).sum())
        means.append(np.mean(gaps))
    return np.array(means)
