"""Terms against brute force: products formed, singular values of the whole matrix."""

import numpy as np
import pytest
import torch

from airtune.learning.components import Components
from airtune.learning.low_rank import Factors, difference, singular_values
from airtune.planning.terms import at, best, dropped_shares, tail_shares

SHAPES = {
    "q.lora_A.weight": (4, 11), "q.lora_B.weight": (7, 4),
    "v.lora_A.weight": (4, 9), "v.lora_B.weight": (13, 4),
}  # fmt: skip


def adapter(seed):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def component(tensors, matrix, index):
    a, b = (tensors[f"{matrix}.lora_{factor}.weight"].double().numpy() for factor in "AB")
    return np.outer(b[:, index], a[index])


def changes():
    new, old = adapter(1), adapter(0)
    pairs = [
        difference(*(Factors(t[f"{m}.lora_A.weight"], t[f"{m}.lora_B.weight"]) for t in (new, old)))
        for m in "qv"
    ]
    return new, old, pairs


def test_singular_values_are_those_of_the_product():
    for rank, d_in, d_out in ((3, 11, 7), (8, 5, 20), (8, 20, 5)):
        draw = torch.Generator().manual_seed(rank + d_in)
        product = Factors(
            torch.randn(rank, d_in, generator=draw), torch.randn(d_out, rank, generator=draw)
        )
        whole = np.linalg.svd((product.b @ product.a).double().numpy(), compute_uv=False)
        own = singular_values(product).numpy()
        assert own[: len(whole)] == pytest.approx(whole[: len(own)], abs=1e-5)


def test_the_tail_of_a_rank_is_what_no_such_change_expresses():
    _, _, pairs = changes()
    whole = [(each.b.double() @ each.a.double()).numpy() for each in pairs]
    total = sum(np.sum(w**2) for w in whole)
    for rank, share in zip((1, 2, 5, 8), tail_shares(pairs, (1, 2, 5, 8)), strict=True):
        left = 0.0
        for w in whole:
            u, s, v = np.linalg.svd(w, full_matrices=False)
            left += np.sum((w - (u[:, :rank] * s[:rank]) @ v[:rank]) ** 2)
        assert share == pytest.approx(left / total, abs=1e-9)


def test_nothing_changed_has_no_tail():
    old = adapter(0)
    still = Factors(old["q.lora_A.weight"], torch.zeros(7, 4))
    assert tail_shares([still], (1, 2)) == [0.0, 0.0]


@pytest.mark.parametrize("pool", ["matrix", "all"])
def test_what_is_dropped_is_the_squared_change_of_the_weakest(pool):
    new, old, _ = changes()
    components = Components(SHAPES, lambda name: True)
    curve, ranking = dropped_shares(components, new, old, pool)
    squares = {
        m: np.array(
            [np.sum((component(new, m, i) - component(old, m, i)) ** 2) for i in range(4)]
        )
        for m in "qv"
    }  # fmt: skip
    whole = sum(each.sum() for each in squares.values())
    if pool == "matrix":  # the j-th best of either
        order = {m: np.sort(each)[::-1] for m, each in squares.items()}
        wanted = [sum(each[k:].sum() for each in order.values()) for k in range(5)]
    else:  # by square per number: a slice of q has 18, one of v 22
        flat = np.concatenate([squares["q"] / 18, squares["v"] / 22])
        gone = np.concatenate([squares["q"], squares["v"]])[np.argsort(-flat)]
        wanted = [gone[k:].sum() for k in range(9)]
    assert curve == pytest.approx(np.array(wanted) / whole, abs=1e-9)
    assert best(ranking, 0, 8).sum() == 0
    kept = best(ranking, 1, 8).numpy()
    left = np.concatenate([squares["q"], squares["v"]])[~kept].sum()
    assert left / whole == pytest.approx(curve[1], abs=1e-9)


def test_nothing_changed_drops_nothing():
    components = Components(SHAPES, lambda name: True)
    curve, _ = dropped_shares(components, adapter(0), adapter(0), "matrix")
    assert curve.tolist() == [0.0] * 5


def test_between_whole_pieces_both_are_sent_by_turns():
    curve = np.array([1.0, 0.4, 0.1])
    assert at(curve, 0.25) == pytest.approx(0.75 * 1.0 + 0.25 * 0.4)
    assert at(curve, 2.0) == pytest.approx(0.1)
