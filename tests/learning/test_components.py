"""Components of an adapter against loops by hand and products formed in full."""

import itertools

import numpy as np
import pytest
import torch

from airtune.learning.components import Components, Sent

RANK = 3
SIZES = {"x.q": (5, 7), "x.v": (4, 2), "y.q": (6, 6)}  # d_in, d_out
SHAPES = {"head.weight": (2, 5)}
for _matrix, (_d_in, _d_out) in SIZES.items():
    SHAPES[f"{_matrix}.lora_A.weight"] = (RANK, _d_in)
    SHAPES[f"{_matrix}.lora_B.weight"] = (_d_out, RANK)
SHARED = {
    "both": lambda name: True,
    "only A": lambda name: ".lora_B." not in name,
    "only B": lambda name: ".lora_A." not in name,
    "both of one, A of another": lambda name: name.startswith("x.q") or name == "y.q.lora_A.weight",
}


def adapter(seed):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def row(made, name, i):
    """Component i's part of a factor."""
    tensor = made[name]
    return tensor[i] if ".lora_A." in name else tensor[:, i]


def piece(made, matrix, i):
    a, b = made[f"{matrix}.lora_A.weight"], made[f"{matrix}.lora_B.weight"]
    return np.outer(b[:, i].double().numpy(), a[i].double().numpy())


def full(made, matrix):
    return sum(piece(made, matrix, i) for i in range(RANK))


def norm(matrix):
    return np.linalg.norm(matrix)


ALL = Components(SHAPES, lambda name: True)


@pytest.mark.parametrize("shared", SHARED)
def test_slices_come_back_as_the_tensors_that_they_were(shared):
    components, made = Components(SHAPES, SHARED[shared]), adapter(0)
    back = components.tensors(components.slices(made))
    assert set(back) == components.names
    assert components.names == {n for n in SHAPES if "lora" in n and SHARED[shared](n)}
    for name, tensor in back.items():
        assert torch.equal(tensor, made[name]) and tensor.is_contiguous()


def test_a_slice_is_a_row_of_a_and_then_a_column_of_b():
    made = adapter(0)
    for matrix, rows in ALL.slices(made).items():
        names = [f"{matrix}.lora_{factor}.weight" for factor in "AB"]
        for i in range(RANK):
            assert rows[i].tolist() == [*row(made, names[0], i), *row(made, names[1], i)]


def test_parts_and_widths_by_hand():
    assert ALL.parts == {"x.q": (5, 7), "x.v": (4, 2), "y.q": (6, 6)}
    assert (ALL.rank, len(ALL)) == (3, 9)
    assert ALL.widths().tolist() == [12] * 3 + [6] * 3 + [12] * 3
    mixed = Components(SHAPES, SHARED["both of one, A of another"])
    assert mixed.parts == {"x.q": (5, 7), "y.q": (6,)}
    assert mixed.widths().tolist() == [12] * 3 + [6] * 3
    only_b = Components(SHAPES, SHARED["only B"])
    assert list(only_b.parts.values()) == [(7,), (2,), (6,)]


@pytest.mark.parametrize("shapes", [{}, {"head.weight": (2, 5)}, {"x.lora_A.weight": (3, 4)}])
def test_without_pairs_of_factors_there_are_no_components(shapes):
    components = Components(shapes, lambda name: True)
    assert len(components) == 0 and components.names == set()
    assert len(Components(SHAPES, lambda name: False)) == 0


def test_a_message_has_as_many_pieces_as_its_pool_says():
    assert (ALL.pieces("matrix"), ALL.pieces("all")) == (3, 9)
    for pool in ("matrix", "all"):
        weighs, ranking = ALL.ranked(torch.rand(9).double(), pool)
        assert len(weighs) == len(ranking) == ALL.pieces(pool)
        assert sorted(ranking.flatten().tolist()) == list(range(9))


def test_components_by_matrix_are_their_runs_of_the_rank():
    found = ALL.by_matrix(torch.arange(9))
    assert {name: each.tolist() for name, each in found.items()} == {
        "x.q": [0, 1, 2],
        "x.v": [3, 4, 5],
        "y.q": [6, 7, 8],
    }


@pytest.mark.parametrize("shared", ["both", "only A"])
def test_scores_are_norms_of_pieces_also_where_a_factor_stays_at_home(shared):
    components = Components(SHAPES, SHARED[shared])
    new, old = adapter(1), adapter(0)
    places = list(itertools.product(SIZES, range(RANK)))
    assert components.norms(new).numpy() == pytest.approx([norm(piece(new, *p)) for p in places])
    moved = [norm(piece(new, *p) - piece(old, *p)) for p in places]
    assert components.changes(new, old).numpy() == pytest.approx(moved)


# ---- the ranking

SQUARES = torch.tensor([5.0, 1.0, 9.0, 4.0, 2.0, 3.0, 0.5, 8.0, 7.0]).double()


def test_a_piece_of_all_matrices_is_the_next_best_of_each():
    weighs, ranking = ALL.ranked(SQUARES, "matrix")
    assert ranking.tolist() == [[2, 3, 7], [0, 5, 8], [1, 4, 6]]
    assert weighs.tolist() == [9 + 4 + 8, 5 + 3 + 7, 1 + 2 + 0.5]


def test_a_pool_of_all_components_ranks_them_by_error_per_number():
    weighs, ranking = ALL.ranked(SQUARES, "all")
    # x.v's slices have half the numbers: 4, 2 and 3 count as 8, 4 and 6.
    order = [2, *sorted([3, 7]), 8, 5, 0, 4, 1, 6]
    assert ranking.tolist() == [[place] for place in order]
    assert torch.equal(weighs, SQUARES)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_pieces_are_the_best_of_their_size(seed):
    squares = torch.rand(9, generator=torch.Generator().manual_seed(seed)).double()
    each = squares.view(3, 3).numpy()
    weighs, ranking = ALL.ranked(squares, "matrix")
    for count in range(1, RANK + 1):
        best = sum(max(map(sum, itertools.combinations(values, count))) for values in each)
        assert float(squares[ranking[:count]].sum()) == pytest.approx(best)
        assert float(weighs[:count].sum()) == pytest.approx(best)
    # Greedy by density is best for the room that its first pieces take exactly.
    _, ranking = ALL.ranked(squares, "all")
    widths = ALL.widths().tolist()
    for count in range(1, 10):
        room = sum(widths[i] for i in ranking[:count, 0])
        best = max(
            sum(float(squares[i]) for i in chosen)
            for size in range(10)
            for chosen in itertools.combinations(range(9), size)
            if sum(widths[i] for i in chosen) <= room
        )
        assert float(squares[ranking[:count, 0]].sum()) == pytest.approx(best)


@pytest.mark.parametrize("pool", ["matrix", "all"])
def test_equal_scores_keep_the_components_order_in_every_run(pool):
    components = Components(SHAPES, lambda name: name.startswith("x.q"))
    weighs, ranking = components.ranked(torch.ones(3).double(), pool)
    assert ranking.tolist() == [[0], [1], [2]] and weighs.tolist() == [1, 1, 1]


# ---- errors


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_those_of_products_formed_in_full(seed):
    new, old = adapter(seed + 10), adapter(seed)
    kept = torch.rand(9, generator=torch.Generator().manual_seed(seed)) < 0.5
    dropped = whole = 0.0
    for k, matrix in enumerate(SIZES):
        change = full(new, matrix) - full(old, matrix)
        sent = sum(
            piece(new, matrix, i) - piece(old, matrix, i) for i in range(RANK) if kept[RANK * k + i]
        )
        dropped += norm(change - sent) ** 2
        whole += norm(change) ** 2
    assert ALL.errors(new, old, kept) == pytest.approx((dropped, whole))


def test_all_sent_leaves_no_error_and_nothing_sent_leaves_all():
    new, old = adapter(1), adapter(0)
    dropped, whole = ALL.errors(new, old, torch.ones(9, dtype=torch.bool))
    assert dropped == 0.0 and whole > 1.0
    dropped, whole = ALL.errors(new, old, torch.zeros(9, dtype=torch.bool))
    assert dropped == pytest.approx(whole)
    assert ALL.errors(old, old, torch.zeros(9, dtype=torch.bool)) == pytest.approx((0, 0), abs=1e-9)


# ---- what the server does with what was sent


def sent_by(clients, components, seed=0, nobody=()):
    """Random messages: (what the server gets, the same as weight and {(matrix, i): slice})."""
    draw = torch.Generator().manual_seed(seed)
    messages, plain = [], []
    for _ in range(clients):
        weight = float(torch.rand(1, generator=draw)) / clients
        kept = torch.rand(len(components), generator=draw) < 0.5
        kept[list(nobody)] = False
        slices, by_hand = {}, {}
        for matrix, mask in components.by_matrix(kept).items():
            values = torch.randn(int(mask.sum()), sum(components.parts[matrix]), generator=draw)
            slices[matrix] = values
            by_hand |= {
                (matrix, int(i)): values[k].double().numpy()
                for k, i in enumerate(mask.nonzero()[:, 0])
            }
        messages.append(Sent(weight, kept, slices))
        plain.append((weight, by_hand))
    return messages, plain


@pytest.mark.parametrize("over_senders", [True, False])
@pytest.mark.parametrize("shared", ["both", "only B", "both of one, A of another"])
@pytest.mark.parametrize("clients", [1, 4])
def test_server_steps_equal_a_loop_over_components_and_clients(over_senders, shared, clients):
    components = Components(SHAPES, SHARED[shared])
    messages, plain = sent_by(clients, components, clients, nobody=[1])
    old = components.slices(adapter(0))
    added = components.added(old, messages, over_senders)
    replaced = components.replaced(old, messages, over_senders)
    everybody = sum(weight for weight, _ in plain)
    for matrix in components.parts:
        assert added[matrix].dtype == replaced[matrix].dtype == torch.float32
        for i in range(RANK):
            before = old[matrix][i].double().numpy()
            heard = [(weight, who[matrix, i]) for weight, who in plain if (matrix, i) in who]
            mass = sum(weight for weight, _ in heard)
            total = sum((weight * values for weight, values in heard), np.zeros_like(before))
            if over_senders:
                after = before + total / mass if heard else before
                mean = total / mass if heard else before
            else:
                after, mean = before + total, total / everybody
            assert added[matrix][i].numpy() == pytest.approx(after, abs=1e-5)
            assert replaced[matrix][i].numpy() == pytest.approx(mean, abs=1e-5)


def test_one_sender_of_weight_one_is_taken_at_its_word():
    old, new = ALL.slices(adapter(0)), ALL.slices(adapter(1))
    everything = torch.ones(9, dtype=torch.bool)
    for over_senders in (True, False):
        replaced = ALL.replaced(old, [Sent(1.0, everything, new)], over_senders)
        change = {matrix: new[matrix] - old[matrix] for matrix in new}
        added = ALL.added(old, [Sent(1.0, everything, change)], over_senders)
        for matrix in new:
            assert torch.equal(replaced[matrix], new[matrix])
            assert added[matrix].numpy() == pytest.approx(new[matrix].numpy(), abs=1e-6)


def test_a_component_that_nobody_sent():
    old = ALL.slices(adapter(0))
    empty = Sent(
        0.5,
        torch.zeros(9, dtype=torch.bool),
        {matrix: torch.zeros(0, sum(parts)) for matrix, parts in ALL.parts.items()},
    )
    for over_senders in (True, False):
        added = ALL.added(old, [empty], over_senders)
        assert all(torch.equal(added[matrix], old[matrix]) for matrix in old)
    stays = ALL.replaced(old, [empty], over_senders=True)
    assert all(torch.equal(stays[matrix], old[matrix]) for matrix in old)
    zero = ALL.replaced(old, [empty], over_senders=False)
    assert all(not rows.any() for rows in zero.values())


def test_old_slices_and_messages_are_left_alone():
    old = ALL.slices(adapter(0))
    copy = {matrix: rows.clone() for matrix, rows in old.items()}
    messages, _ = sent_by(3, ALL)
    sums = [{m: s.clone() for m, s in each.slices.items()} for each in messages]
    ALL.added(old, messages, True)
    ALL.replaced(old, messages, False)
    assert all(torch.equal(old[matrix], copy[matrix]) for matrix in old)
    for each, before in zip(messages, sums, strict=True):
        assert all(torch.equal(each.slices[matrix], before[matrix]) for matrix in before)


# ---- the covariance


def models(old, plain, components, is_change):
    """Each client's (weight, adapter) by hand: what it did not send is as it was."""
    total = sum(weight for weight, _ in plain)
    found = []
    for weight, by_hand in plain:
        own = {name: tensor.clone() for name, tensor in old.items()}
        for (matrix, i), values in by_hand.items():
            pieces = torch.from_numpy(values).float().split(list(components.parts[matrix]))
            names = [f"{matrix}.lora_A.weight", f"{matrix}.lora_B.weight"]
            shared = [name for name in names if name in components.names]
            for name, values_of_factor in zip(shared, pieces, strict=True):
                base = row(old, name, i) if is_change else 0.0
                row(own, name, i)[:] = base + values_of_factor
        found.append((weight / total, own))
    return found


@pytest.mark.parametrize("is_change", [True, False])
@pytest.mark.parametrize("shared", ["both", "both of one, A of another"])
def test_covariance_is_that_of_products_formed_in_full(shared, is_change):
    components, old = Components(SHAPES, SHARED[shared]), adapter(9)
    copy = {name: tensor.clone() for name, tensor in old.items()}
    messages, plain = sent_by(3, components, 1)
    clients = models(old, plain, components, is_change)
    left_out = model = moved = 0.0
    for matrix in components.parts:
        together = sum(weight * full(own, matrix) for weight, own in clients)
        mean = {name: sum(w * own[name].double() for w, own in clients) for name in SHAPES}
        apart = full(mean, matrix)
        left_out += norm(together - apart) ** 2
        model += norm(apart) ** 2
        moved += norm(apart - full(old, matrix)) ** 2
    found = components.covariance(old, messages, is_change)
    assert found["covariance"] == pytest.approx(np.sqrt(left_out / model), rel=1e-5)
    assert found["covariance_of_change"] == pytest.approx(np.sqrt(left_out / moved), rel=1e-5)
    assert found["covariance"] > 0.1
    assert all(torch.equal(old[name], copy[name]) for name in old)


@pytest.mark.parametrize("shared", ["only A", "only B"])
def test_with_one_factor_at_home_there_is_no_covariance(shared):
    components, old = Components(SHAPES, SHARED[shared]), adapter(9)
    copy = {name: tensor.clone() for name, tensor in old.items()}
    messages, _ = sent_by(3, components, 1)
    assert components.covariance(old, messages, True)["covariance"] == pytest.approx(0, abs=1e-6)
    assert all(torch.equal(old[name], copy[name]) for name in old)


@pytest.mark.parametrize("is_change", [True, False])
@pytest.mark.parametrize("clients", [1, 4])
def test_clients_that_agree_have_no_covariance_nor_has_one_alone(clients, is_change):
    kept = torch.arange(9) % 2 == 0
    slices = ALL.slices(adapter(0))
    slices = {matrix: slices[matrix][each] for matrix, each in ALL.by_matrix(kept).items()}
    found = ALL.covariance(adapter(9), [Sent(0.1, kept, slices)] * clients, is_change)
    assert found == {
        "covariance": pytest.approx(0.0, abs=1e-6),
        "covariance_of_change": pytest.approx(0.0, abs=1e-6),
    }


def test_covariance_of_a_model_that_is_nothing_is_no_division_by_zero():
    nothing = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    sent = Sent(0.5, torch.ones(9, dtype=torch.bool), ALL.slices(nothing))
    found = ALL.covariance(nothing, [sent, sent], True)
    assert found == {"covariance": 0.0, "covariance_of_change": 0.0}


# ---- means of products


@pytest.mark.parametrize("over_senders", [True, False])
@pytest.mark.parametrize("is_change", [True, False])
def test_mean_products_have_the_weights_of_rows_and_columns_averaged_apart(is_change, over_senders):
    old = adapter(9)
    messages, plain = sent_by(4, ALL, 2, nobody=[1])
    everybody = sum(weight for weight, _ in plain)
    clients = models(old, plain, ALL, is_change)
    found = ALL.mean_products(old, messages, is_change, over_senders)
    rule = ALL.added if is_change else ALL.replaced
    apart = old | ALL.tensors(rule(ALL.slices(old), messages, over_senders))
    for matrix in ALL.parts:
        expected = np.zeros_like(full(old, matrix))
        for i in range(RANK):
            heard = [
                (weight, piece(own, matrix, i))
                for (weight, by_hand), (_, own) in zip(plain, clients, strict=True)
                if (matrix, i) in by_hand
            ]
            mass = sum(weight for weight, _ in heard)
            z = (mass or 1.0) if over_senders else {True: 1.0, False: everybody}[is_change]
            expected += sum(weight / z * own for weight, own in heard)
            if is_change or over_senders:
                expected += (1.0 - mass / z) * piece(old, matrix, i)
        got = (found[matrix].b @ found[matrix].a).numpy()
        assert got == pytest.approx(expected, abs=1e-5)
        assert norm(got - full(apart, matrix)) > 0.1  # so the repair is not nothing
        assert found[matrix].a.dtype == torch.float64


@pytest.mark.parametrize("over_senders", [True, False])
def test_the_repair_of_everything_kept_is_the_covariance(over_senders):
    """With all sent the residual is the product of deviations, whatever the rule."""
    old, everything = adapter(9), torch.ones(9, dtype=torch.bool)
    clients = [(0.2, adapter(1)), (0.5, adapter(2)), (0.3, adapter(3))]
    messages = [Sent(weight, everything, ALL.slices(own)) for weight, own in clients]
    means = ALL.mean_products(old, messages, False, over_senders)
    for matrix in ALL.parts:
        mean = {name: sum(w * own[name].double() for w, own in clients) for name in SHAPES}
        deviations = sum(
            w * full({name: own[name] - mean[name] for name in SHAPES}, matrix)
            for w, own in clients
        )
        got = (means[matrix].b @ means[matrix].a).numpy() - full(mean, matrix)
        assert got == pytest.approx(deviations, abs=1e-6)


@pytest.mark.parametrize("pool", ["matrix", "all"])
def test_what_the_best_parts_hold_by_hand(pool):
    before, after = adapter(0), adapter(1)
    squares = [
        [norm(piece(after, matrix, i) - piece(before, matrix, i)) ** 2 for i in range(RANK)]
        for matrix in SIZES
    ]
    if pool == "matrix":  # the best of every matrix together, then the second best
        pieces = np.sort(squares, axis=1)[:, ::-1].sum(0)
    else:  # for the bits that they take
        widths = [sum(sizes) for sizes in SIZES.values()]
        listed = [(s / width, s) for row, width in zip(squares, widths, strict=True) for s in row]
        pieces = np.array([s for _, s in sorted(listed, reverse=True)])
    shares = (pieces / pieces.sum()).cumsum()
    count = len(shares)
    held = ALL.held(ALL.changes(after, before) ** 2, pool, [1 / count, 2 / count, 1.0, 1.5 / count])
    # Of a piece that is cut, half counts.
    assert held == pytest.approx([shares[0], shares[1], 1.0, 0.5 * (shares[0] + shares[1])])


def test_of_equal_components_every_part_holds_its_part():
    for pool in ("matrix", "all"):
        held = ALL.held(torch.ones(9, dtype=torch.float64), pool, [0.125, 0.25, 0.5])
        assert held == pytest.approx([0.125, 0.25, 0.5])
