"""Low-rank algebra against NumPy on products that are formed in full."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.learning import low_rank
from airtune.learning.low_rank import Factors


def product(rank, d_in, d_out, seed, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rank, d_in)), rng.standard_normal((d_out, rank))
    return Factors(torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype))


def full(factors):
    return factors.b.double().numpy() @ factors.a.double().numpy()


def norm(matrix):
    return np.linalg.norm(matrix)


SIZES = st.tuples(*[st.integers(1, 9)] * 3, st.integers(0, 10**6))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_the_norm_is_that_of_the_formed_product(sizes):
    made = product(*sizes)
    assert low_rank.squared_norm(made) == pytest.approx(norm(full(made)) ** 2, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_scores_are_the_norms_of_the_rank_one_pieces(sizes):
    new, old = product(*sizes), product(*sizes[:3], sizes[3] + 1)
    pieces = [full(new.take(torch.tensor([i]))) for i in range(new.rank)]
    before = [full(old.take(torch.tensor([i]))) for i in range(new.rank)]
    assert low_rank.importance(new).numpy() == pytest.approx([norm(piece) for piece in pieces])
    moved = [norm(one - other) for one, other in zip(pieces, before, strict=True)]
    assert low_rank.change(new, old).numpy() == pytest.approx(moved, rel=1e-6, abs=1e-9)


def test_no_change_scores_nothing_and_a_small_one_is_not_lost():
    old = product(6, 40, 30, 0, torch.float32)
    assert low_rank.change(old, old).tolist() == pytest.approx([0.0] * 6, abs=1e-6)
    new = Factors(old.a + 1e-5, old.b.clone())
    moved = [
        norm(full(new.take(torch.tensor([i]))) - full(old.take(torch.tensor([i]))))
        for i in range(6)
    ]
    assert low_rank.change(new, old).numpy() == pytest.approx(moved, rel=1e-4)


def test_scores_do_not_overflow_or_round_in_half_precision():
    made = Factors(torch.full((2, 8), 3e4).half(), torch.full((8, 2), 3e4).half())
    # Each piece is 8 x 8 of 9e8: far above 65504, the largest half.
    expected = 8 * float(torch.tensor(3e4).half()) ** 2
    assert low_rank.importance(made).tolist() == pytest.approx([expected] * 2, rel=1e-9)
    assert low_rank.squared_norm(made) == pytest.approx((2 * expected) ** 2, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 9))
def test_truncation_is_that_of_the_svd(sizes, keep):
    made = product(*sizes)
    values = np.linalg.svd(full(made), compute_uv=False)
    best = low_rank.truncated(made, keep)
    assert best.rank == keep
    assert norm(full(made) - full(best)) == pytest.approx(norm(values[keep:]), abs=1e-8)
    assert norm(full(best)) == pytest.approx(norm(values[:keep]))


def test_truncation_beats_any_other_choice_of_that_rank():
    made = product(6, 20, 15, 1)
    best = norm(full(made) - full(low_rank.truncated(made, 3)))
    rng = np.random.default_rng(2)
    for _ in range(200):
        # The best product in a random row space is the projection on it: no worse than any other.
        space = np.linalg.qr(rng.standard_normal((20, 3)))[0]
        assert norm(full(made) @ (np.eye(20) - space @ space.T)) >= best


def test_truncation_has_orthonormal_rows_and_singular_values_as_lengths():
    made = product(5, 12, 9, 3, torch.float32)
    best = low_rank.truncated(made, 4)
    values = np.linalg.svd(full(made), compute_uv=False)[:4]
    assert (best.a @ best.a.mT).numpy() == pytest.approx(np.eye(4), abs=1e-5)
    assert (best.b.mT @ best.b).numpy() == pytest.approx(np.diag(values**2), rel=1e-4, abs=1e-3)
    assert low_rank.importance(best).numpy() == pytest.approx(values, rel=1e-5)
    assert best.a.dtype == best.b.dtype == torch.float32


def test_truncation_fills_up_with_zeros_where_fewer_components_exist():
    made = product(2, 5, 4, 4)
    best = low_rank.truncated(made, 6)
    assert best.a.shape == (6, 5) and best.b.shape == (4, 6)
    assert full(best) == pytest.approx(full(made))
    assert best.a[:2].any() and not best.a[2:].any() and not best.b[:, 2:].any()


def test_truncation_of_a_wide_rank_and_of_nothing():
    wide = product(9, 4, 3, 4)  # more components than either dimension
    assert full(low_rank.truncated(wide, 9)) == pytest.approx(full(wide))
    assert full(low_rank.truncated(wide, 3)) == pytest.approx(full(wide))
    empty = Factors(torch.randn(4, 6), torch.zeros(5, 4))
    assert full(low_rank.truncated(empty, 2)) == pytest.approx(np.zeros((5, 6)))


def test_sums_and_differences_are_exact():
    parts = [(0.2, product(3, 7, 5, 0)), (0.5, product(2, 7, 5, 1)), (-1.3, product(4, 7, 5, 2))]
    whole = low_rank.stacked(parts)
    assert whole.rank == 9
    assert full(whole) == pytest.approx(sum(weight * full(each) for weight, each in parts))
    less = low_rank.difference(parts[0][1], parts[1][1])
    assert full(less) == pytest.approx(full(parts[0][1]) - full(parts[1][1]))


def test_averaging_apart_leaves_out_the_covariance():
    weights = np.random.default_rng(0).dirichlet(np.ones(5))
    parts = [(float(w), product(4, 9, 6, n)) for n, w in enumerate(weights)]
    together = sum(weight * full(each) for weight, each in parts)
    mean, left_out = low_rank.mean(parts), low_rank.covariance(parts)
    assert full(mean) + full(left_out) == pytest.approx(together, abs=1e-12)
    assert norm(full(left_out)) > 0.1 * norm(full(mean))
    mean_a = sum(weight * each.a.numpy() for weight, each in parts)
    assert mean.a.numpy() == pytest.approx(mean_a)


@pytest.mark.parametrize("same", ["a", "b"])
def test_covariance_is_nothing_if_one_factor_is_common(same):
    first = product(4, 9, 6, 0)
    parts = [(0.25, product(4, 9, 6, n)._replace(**{same: getattr(first, same)})) for n in range(4)]
    assert low_rank.squared_norm(low_rank.covariance(parts)) == pytest.approx(0.0, abs=1e-20)


def test_gram_penalties_of_a_batch():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 2, 5, 8)))
    off, literal = low_rank.off_diagonal(rows), low_rank.off_identity(rows)
    assert off.shape == literal.shape == (3, 2)
    for place in np.ndindex(3, 2):
        gram = rows[place].numpy() @ rows[place].numpy().T
        pairs = [gram[i, j] ** 2 for i in range(5) for j in range(5) if i != j]
        assert off[place].item() == pytest.approx(sum(pairs))
        assert literal[place].item() == pytest.approx(norm(gram - np.eye(5)) ** 2)


def test_orthogonal_rows_of_any_length_are_not_penalised_and_orthonormal_ones_not_even_literally():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 5)))[0].T
    scaled = torch.from_numpy(np.arange(5.0)[:, None] * basis)
    assert low_rank.off_diagonal(scaled).item() == pytest.approx(0.0, abs=1e-20)
    assert low_rank.off_identity(torch.from_numpy(basis.copy())).item() == pytest.approx(
        0, abs=1e-9
    )
    # Gram matrix diag(0, 1, 4, 9, 16): 1 + 0 + 9 + 64 + 225.
    assert low_rank.off_identity(scaled).item() == pytest.approx(299.0)


def test_matrices_are_those_with_both_factors_in_their_order():
    names = [
        *("z.lora_A.weight", "head.weight", "a.lora_B.weight", "a.lora_A.weight"),
        *("z.lora_B.weight", "half.lora_A.weight", "other.lora_B.weight"),
    ]
    assert low_rank.matrices(names) == ["z", "a"]
    assert low_rank.matrices([]) == []


def test_matrices_are_found_in_names_that_can_be_read_only_once():
    names = iter(["z.lora_A.weight", "z.lora_B.weight"])
    assert low_rank.matrices(names) == ["z"]


def test_factors_are_found_by_name():
    made = product(3, 4, 5, 0)
    a, b = low_rank.factor_names("layer.0.q")
    found = low_rank.factors({b: made.b, a: made.a, "head": made.a}, "layer.0.q")
    assert found.a is made.a and found.b is made.b


# ---- the four lines of the argument (section 3.3): 96 x 64, rank 16, 4 kept


def orthogonal(rng, rows, width):
    return np.linalg.qr(rng.standard_normal((width, rows)))[0].T


def kinds(seed):
    """(A, B) of each kind, components' lengths falling so that the best 4 leave about 13 %."""
    rng = np.random.default_rng(seed)
    length = 0.605 ** (np.arange(16) / 2)
    a, b = rng.standard_normal((16, 64)) / 8, rng.standard_normal((96, 16)) / np.sqrt(96) * length
    stretch = orthogonal(rng, 16, 16) @ np.diag(np.geomspace(1, 100, 16)) @ orthogonal(rng, 16, 16)
    straight_a, straight_b = orthogonal(rng, 16, 64), orthogonal(rng, 16, 96).T
    root = np.sqrt(length)
    return {
        "independent": (a, b),
        "rotated": (stretch @ a, b @ np.linalg.inv(stretch)),
        "one side": (straight_a, b),
        "both sides": (root[:, None] * straight_a, straight_b * root),
    }


def drop_error(a, b):
    """(true, predicted, best possible) error of keeping the four largest scores, of the whole."""
    made = Factors(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()))
    scores = low_rank.importance(made)
    kept = scores.argsort(descending=True)[:4]
    whole = norm(b @ a) ** 2
    true = norm(b @ a - full(made.take(kept))) ** 2
    predicted = float((scores**2).sum() - (scores[kept] ** 2).sum())
    best = norm(np.linalg.svd(b @ a, compute_uv=False)[4:]) ** 2
    return true / whole, predicted / whole, best / whole


@pytest.mark.parametrize("seed", range(5))
def test_what_dropping_costs_is_known_from_norms_if_a_side_is_orthogonal(seed):
    made = kinds(seed)
    true, predicted, best = drop_error(*made["independent"])
    assert true == pytest.approx(predicted, rel=0.15)
    assert best < true < 1.5 * best

    true, predicted, best = drop_error(*made["rotated"])
    assert true > 5 and predicted > 5  # sending nothing costs 1

    true, predicted, best = drop_error(*made["one side"])
    assert true == pytest.approx(predicted, rel=1e-10)
    assert best < true < 1.3 * best

    true, predicted, best = drop_error(*made["both sides"])
    assert true == pytest.approx(predicted, rel=1e-10)
    assert true == pytest.approx(best, rel=1e-10)
    assert true == pytest.approx(0.134, abs=1e-3)
