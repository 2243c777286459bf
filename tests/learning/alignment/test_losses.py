"""Losses of alignment against numbers worked out by hand and definitions in NumPy."""

import math

import numpy as np
import pytest
import torch

from airtune.learning.alignment import losses
from airtune.learning.data.examples import IGNORED

RNG = np.random.default_rng(0)


def draw(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def lengths_mask(slots, rows, length):
    ends = torch.from_numpy(RNG.integers(1, length + 1, size=(slots, rows, 1)))
    return torch.arange(length) < ends


def test_dpo_by_hand():
    """Gains 2 - (-1) = 3 and 0 - 1 = -1 at beta 0.5: -log sigmoid of 1.5 and of -0.5."""
    one, two = torch.tensor([[-4.0, -7.0]]), torch.tensor([[-9.0, -3.0]])
    loss = losses.dpo(one, two, torch.tensor([[-6.0, -7.0]]), torch.tensor([[-8.0, -4.0]]), 0.5)
    assert loss.item() == pytest.approx((0.20141328 + 0.97407698) / 2, abs=1e-6)


def test_a_sign_turns_a_pair_of_dpo_round_or_silences_it():
    one, two, one_reference, two_reference = (draw(3, 4) for _ in range(4))
    given = one, two, one_reference, two_reference
    turned = losses.dpo(two, one, two_reference, one_reference, 0.5)
    assert torch.allclose(losses.dpo(*given, 0.5, -1.0), turned)
    sign = torch.tensor([[1.0, -1.0, 0.0, 1.0]]).expand(3, 4)
    each = [losses.dpo(*(g[:, i : i + 1] for g in given), 0.5, float(sign[0, i])) for i in range(4)]
    assert torch.allclose(losses.dpo(*given, 0.5, sign), torch.stack(each).mean(0))
    assert each[2].tolist() == pytest.approx([math.log(2)] * 3)


def test_pairwise_by_hand():
    """Equal rewards cost log 2, a lead of log 3 costs log 4/3, and a lag of log 3 costs log 4."""
    ahead = torch.tensor([[1.0, math.log(3)], [5.0, 0.0]])
    behind = torch.tensor([[1.0, 0.0], [5.0, math.log(3)]])
    expected = [(math.log(2) + math.log(4 / 3)) / 2, (math.log(2) + math.log(4)) / 2]
    assert losses.pairwise(ahead, behind).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    # Clipped at 1.2 where it would gain more; not where the lower bound helps a gain to shrink.
    [(1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6), (1.1, 3.0, -3.3)],
)
def test_the_clipped_surrogate_by_hand(ratio, advantage, loss):
    new = torch.full((1, 1, 1), math.log(ratio), requires_grad=True)
    zero, mask = torch.zeros(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)
    value = losses.clipped_surrogate(new, zero, zero + advantage, mask, 0.2)
    assert value.item() == pytest.approx(loss, abs=1e-6)
    value.sum().backward()
    clipped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    assert new.grad.item() == pytest.approx(0.0 if clipped else -ratio * advantage, abs=1e-6)


def test_what_lies_outside_the_mask_has_no_effect():
    mask = lengths_mask(2, 3, 6)
    new, old, advantages, reference = (draw(2, 3, 6) for _ in range(4))
    values = []
    for rubbish in (0.0, math.inf, math.nan, 1e4):
        spoilt = [x.masked_fill(~mask, rubbish) for x in (new, old, advantages, reference)]
        spoilt[0].requires_grad_()
        each = [
            losses.clipped_surrogate(*spoilt[:3], mask, 0.2),
            losses.kl_estimate(spoilt[0], spoilt[3], mask),
            *losses.gae(spoilt[2].detach(), spoilt[1], mask, 0.9, 0.95),
        ]
        sum(losses.sequence_mean(x.view(2, 3, 6), mask).sum() for x in each).backward()
        assert all(not x[~mask].any() for x in each)
        values.append([*each, spoilt[0].grad])
    for other in values[1:]:
        for one, two in zip(values[0], other, strict=True):
            assert torch.equal(one, two)
    assert values[0][-1][mask].all()


def test_generalised_advantages_are_their_sum():
    """Against the double sum of the definition, for each answer alone; not by the recursion."""
    gamma, lam = 0.9, 0.8
    mask = lengths_mask(2, 4, 7)
    rewards, values = draw(2, 4, 7), draw(2, 4, 7)
    advantages, returns = losses.gae(rewards, values, mask, gamma, lam)
    for slot in range(2):
        for row in range(4):
            end = int(mask[slot, row].sum())
            r, v = (x[slot, row, :end].double().numpy() for x in (rewards, values))
            delta = r + gamma * np.append(v[1:], 0.0) - v
            for t in range(end):
                a = sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, end))
                assert advantages[slot, row, t].item() == pytest.approx(a, abs=1e-6)
                assert returns[slot, row, t].item() == pytest.approx(a + v[t], abs=1e-6)


def test_generalised_advantages_by_hand():
    """Without discount and at lambda 1 a return is what is still to come; at 0 one step ahead."""
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.25, 0.5, 0.75]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = losses.gae(rewards, values, mask, 1.0, 1.0)
    assert advantages.tolist() == [[0.75, 0.5, 0.25]]
    assert returns.tolist() == [[1.0, 1.0, 1.0]]
    advantages, _ = losses.gae(rewards, values, mask, 1.0, 0.0)
    assert advantages.tolist() == [[0.25, 0.25, 0.25]]


def test_group_advantages_by_hand():
    """Groups (0, 2) and (5, 5): deviations sqrt 2 and 0; of all four sqrt(18/3)."""
    rewards = torch.tensor([[[0.0, 2.0], [5.0, 5.0]]])
    assert losses.group_advantages(rewards, "none").tolist() == [[[-1.0, 1.0], [0.0, 0.0]]]
    for scale, deviation in (("group", math.sqrt(2)), ("batch", math.sqrt(6))):
        own = losses.group_advantages(rewards, scale)[0]
        assert own[0].tolist() == pytest.approx([-1 / (deviation + 1e-4), 1 / (deviation + 1e-4)])
        assert own[1].tolist() == [0.0, 0.0]
    assert losses.group_advantages(torch.tensor([[[3.0]]]), "group").item() == 0.0


def test_the_estimate_of_kl_is_unbiased():
    """Its mean under the policy, over the whole vocabulary, is the exact divergence."""
    logits, reference = draw(5, 11).double(), draw(5, 11).double()
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    estimate = losses.kl_estimate(log_p, log_q, torch.ones(5, 11, dtype=torch.bool))
    assert (estimate >= 0).all()
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert torch.allclose((log_p.exp() * estimate).sum(-1), expected, atol=1e-12)
    assert torch.allclose(losses.exact_kl(logits, reference).double(), expected, atol=1e-6)


def test_entropy_and_divergence_by_hand():
    fair, biased = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    assert losses.entropy(fair).item() == pytest.approx(math.log(2))
    assert losses.entropy(biased).item() == pytest.approx(0.56233514)
    # 3/4 log(3/2) + 1/4 log(1/2)
    assert losses.exact_kl(biased, fair).item() == pytest.approx(0.13081204, abs=1e-6)
    # 1/2 log(2/3) + 1/2 log 2
    assert losses.exact_kl(fair, biased).item() == pytest.approx(0.14384104, abs=1e-6)


def test_the_mean_over_answers_by_hand():
    """Answers of one token (4) and three (1, 2, 3)."""
    values = torch.tensor([[[4.0, 9.0, 9.0], [1.0, 2.0, 3.0]]])
    mask = torch.tensor([[[True, False, False], [True, True, True]]])
    assert losses.sequence_mean(values, mask).tolist() == [3.0]
    assert losses.sequence_mean(values, mask & False).tolist() == [0.0]


def test_a_slots_mean_does_not_depend_on_its_neighbours():
    values, mask = draw(7, 6, 37), lengths_mask(7, 6, 37)
    together = losses.sequence_mean(values, mask)
    for slot in range(7):
        alone = losses.sequence_mean(values[slot : slot + 1], mask[slot : slot + 1])
        assert torch.equal(alone[0], together[slot])


def test_log_probabilities_stand_at_the_place_of_their_token():
    logits, temperature = draw(3, 6, 9), 0.7
    labels = torch.from_numpy(RNG.integers(0, 9, size=(3, 6)))
    labels[0, :3], labels[1, 4:] = IGNORED, IGNORED
    found, mask = losses.answer_log_probs(logits, labels, temperature)
    p = np.exp(logits.double().numpy() / temperature)
    p /= p.sum(-1, keepdims=True)
    for row in range(3):
        for t in range(6):
            counts = t > 0 and labels[row, t] != IGNORED
            assert bool(mask[row, t]) == counts
            expected = math.log(p[row, t - 1, labels[row, t]]) if counts else 0.0
            assert found[row, t].item() == pytest.approx(expected, abs=1e-6)
