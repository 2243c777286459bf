"""What several senders know together, against loops over positions, classes and senders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from airtune.learning.ensemble import Part, combine
from airtune.learning.knowledge import floored

RULES = ["mask", "count", "mag", "zero", "prob"]


def top(logits, k, positions=None):
    """What a sender says that has these logits [n, width]: its k largest."""
    values, index = logits.topk(k, dim=1)
    at = torch.arange(len(logits)) if positions is None else torch.as_tensor(positions)
    return Part(at, values, index)


def random_parts(rule, positions=7, width=9, seed=0):
    """Senders of unequal k, about some positions in any order; nobody speaks of the last one."""
    rng = np.random.default_rng(seed)
    parts = []
    for k, count in [(1, 6), (3, 4), (9, 3), (4, 2), (2, 6)]:
        at = rng.permutation(positions - 1)[:count]
        logits = torch.from_numpy(3 * rng.standard_normal((count, width))).float()
        logits = logits.log_softmax(1) if rule == "prob" else logits - 1.0
        part = top(logits, k, at)
        part.values[0, max(1, k - 1) :] = -torch.inf  # a sender that knows fewer entries here
        parts.append(part)
    return parts


def said(part):
    """{position: {class: value}}."""
    return {
        int(at): {
            int(c): float(v) for v, c in zip(values, index, strict=True) if v != -float("inf")
        }
        for at, values, index in zip(part.positions, part.values, part.index, strict=True)
    }


def by_loops(parts, positions, width, rule):
    """Return the combined value [positions, width], NaN where nobody sent; and rest."""
    senders = [said(part) for part in parts]
    together = np.full((positions, width), np.nan)
    rest = np.full(positions, np.nan)
    for x in range(positions):
        present = [s for s in senders if x in s]
        if rule == "zero":
            rest[x] = 0.0
        if rule == "prob" and present:
            share = [left(s[x], width) for s in present]
            rest[x] = np.log(max(np.mean(share), 1e-12))
        for c in range(width):
            naming = [s for s in present if c in s[x]]
            if not naming:
                continue
            if rule == "zero":
                together[x, c] = sum(s[x].get(c, 0.0) for s in present) / len(present)
            elif rule == "prob":
                chances = [np.exp(s[x][c]) if c in s[x] else left(s[x], width) for s in present]
                together[x, c] = np.log(np.mean(chances))
            else:
                weights = [weight(s, x, c, rule) for s in naming]
                terms = [w * s[x][c] for w, s in zip(weights, naming, strict=True)]
                together[x, c] = sum(terms) / sum(weights)
    return together, rest


def weight(sender, x, c, rule):
    if rule == "count":
        return sum(c in entries for entries in sender.values())
    if rule == "mag":
        return sender[x][c] - min(sender[x].values()) + 1e-6
    return 1.0


def left(entries, width):
    """Probability of each entry that a sender did not name."""
    remaining = max(1.0 - sum(np.exp(v) for v in entries.values()), 0.0)
    return remaining / max(width - len(entries), 1)


def dense(known):
    """[positions, width] of what is known, NaN elsewhere."""
    table = np.full((len(known.values), known.width), np.nan)
    for x, (values, index) in enumerate(zip(known.values, known.index, strict=True)):
        for v, c in zip(values.tolist(), index.tolist(), strict=True):
            if v != -float("inf"):
                assert np.isnan(table[x, c]), "an entry is listed twice"
                table[x, c] = v
    return table


def filled(known):
    """[positions, width] with the rest value wherever nothing is listed."""
    table = dense(known)
    return np.where(np.isnan(table), known.rest.numpy()[:, None], table)


def softmax(values):
    powers = np.exp(values - np.nanmax(values, -1, keepdims=True))
    return powers / np.nansum(powers, -1, keepdims=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_every_rule_is_its_formula(rule, seed):
    parts = random_parts(rule, seed=seed)
    known = combine(parts, 7, 9, rule)
    expected, rest = by_loops(parts, 7, 9, rule)
    np.testing.assert_allclose(dense(known), expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(dense(known)[6]).all(), "nobody spoke of the last position"
    if rule in ("zero", "prob"):
        covered = ~np.isnan(rest)
        np.testing.assert_allclose(known.rest.numpy()[covered], rest[covered], rtol=1e-4)
        assert torch.isfinite(known.rest).all()
    else:
        assert known.rest is None


@pytest.mark.parametrize("rule", RULES)
def test_entries_come_by_falling_value_and_then_nothing(rule):
    known = combine(random_parts(rule), 7, 9, rule)
    assert known.values.shape == known.index.shape
    for values, index in zip(known.values, known.index, strict=True):
        count = int(torch.isfinite(values).sum())
        assert (values[:count].diff() <= 0).all()
        assert (values[count:] == -torch.inf).all()
        assert (index[count:] == 0).all()
    assert torch.isfinite(known.values).sum(1).max() == known.values.shape[1], "no empty column"


@pytest.mark.parametrize("rule", ["mask", "count", "zero", "prob"])
def test_all_entries_of_all_give_the_plain_mean(rule):
    logits = torch.randn(4, 6, 11, generator=torch.Generator().manual_seed(1))
    if rule == "prob":
        logits = logits.log_softmax(-1)
    known = combine([top(each, 11) for each in logits], 6, 11, rule)
    every = logits.double().numpy()
    mean = np.log(np.exp(every).mean(0)) if rule == "prob" else every.mean(0)
    np.testing.assert_allclose(dense(known), mean, atol=1e-5)


@pytest.mark.parametrize("rule", ["mask", "count", "mag"])
def test_nothing_is_filled_in_for_who_did_not_send(rule):
    """All send values of at least 5, so no combined value may lie below."""
    parts = [Part(p.positions, p.values.abs() + 5.0, p.index) for p in random_parts("mask")]
    for part in parts:
        part.values[part.values.isinf()] = -torch.inf
    known = combine(parts, 7, 9, rule)
    assert known.rest is None
    assert known.values[torch.isfinite(known.values)].min() >= 5.0
    zeros = combine(parts, 7, 9, "zero")
    assert zeros.values[torch.isfinite(zeros.values)].min() < 5.0


def test_a_constant_on_a_samples_logits_is_nothing_to_those_who_do_not_fill_in():
    logits = torch.randn(5, 3, 12, generator=torch.Generator().manual_seed(2))
    moved = logits.clone()
    moved[:, 1] -= 6.0
    for rule in ("mask", "count", "mag"):
        one, other = (
            dense(combine([top(e, k + 2) for k, e in enumerate(each)], 3, 12, rule))
            for each in (logits, moved)
        )
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        np.testing.assert_allclose(softmax(one), softmax(other), atol=1e-4)
    one, other = (
        softmax(filled(combine([top(e, k + 2) for k, e in enumerate(each)], 3, 12, "zero")))
        for each in (logits, moved)
    )
    np.testing.assert_allclose(one[[0, 2]], other[[0, 2]], atol=1e-6)
    assert np.abs(one[1] - other[1]).max() > 0.05


def test_averaged_probabilities_sum_to_one():
    logits = 2 * torch.randn(4, 5, 10, generator=torch.Generator().manual_seed(3))
    parts = [top(each.log_softmax(1), k) for k, each in zip((1, 3, 6, 10), logits, strict=True)]
    np.testing.assert_allclose(np.exp(filled(combine(parts, 5, 10, "prob"))).sum(1), 1, atol=1e-5)


def test_weights_by_hand():
    """Two texts, four classes: one sender is sure of class 2, the other barely names it."""
    one = Part(
        torch.tensor([0, 1]), torch.tensor([[4.0, 1.0], [3.0, 2.0]]), torch.tensor([[2, 0]] * 2)
    )
    two = Part(torch.tensor([0]), torch.tensor([[5.0, 2.0]]), torch.tensor([[1, 2]]))
    values = {rule: dense(combine([one, two], 2, 4, rule)) for rule in RULES[:4]}
    assert values["mask"][0, 2] == 3.0
    assert values["count"][0, 2] == pytest.approx((2 * 4 + 1 * 2) / 3)
    assert values["mag"][0, 2] == pytest.approx(4.0, abs=1e-5)
    assert values["zero"][0].tolist()[:3] == [0.5, 2.5, 3.0]
    for rule in RULES[:4]:
        assert values[rule][1, 2] == 3.0
        assert np.isnan(values[rule][:, 3]).all()


@pytest.mark.parametrize("rule", RULES)
def test_who_says_nothing_changes_nothing(rule):
    parts = random_parts(rule)
    none = Part(torch.zeros(0).long(), torch.zeros(0, 3), torch.zeros(0, 3).long())
    alone, beside = combine(parts, 7, 9, rule), combine([none, *parts], 7, 9, rule)
    assert torch.equal(alone.values, beside.values)
    assert torch.equal(alone.index, beside.index)
    silent = combine([none], 7, 9, rule)
    assert len(silent.values) == 7
    assert not torch.isfinite(silent.values).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_part_without_a_column_says_nothing(rule):

    parts = random_parts(rule)
    none = Part(torch.tensor([6]), torch.zeros(1, 0), torch.zeros(1, 0).long())
    alone, beside = combine(parts, 7, 9, rule), combine([none, *parts], 7, 9, rule)
    assert torch.equal(alone.values, beside.values)


def test_a_floor_under_nothing_is_nothing():

    none = Part(torch.zeros(0).long(), torch.zeros(0, 3), torch.zeros(0, 3).long())
    known = floored(combine([none], 7, 9, "mask"), 2.0)
    assert not torch.isfinite(known.values).any()
