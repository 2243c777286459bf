"""Coded logits beside a reference: there and back, what they cost, and bytes that mean nothing."""

import struct
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.wire import CodedLogits, Reference, WireError, container, decode, encode
from airtune.wire.bits import Scale


def largest(logits, counts, k=None):
    """The largest ``counts`` of each row by ascending index, [rows, k], behind them -inf."""
    rows, k = len(logits), max(counts, default=0) if k is None else k
    values, index = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), int)
    for row, count in enumerate(counts):
        index[row, :count] = np.sort(np.argsort(-logits[row], kind="stable")[:count])
        values[row, :count] = logits[row, index[row, :count]]
    return torch.from_numpy(values), torch.from_numpy(index)


def reference_of(logits, counts):
    """The same entries, the likeliest first, as a reference holds them."""
    values, index = largest(logits, counts)
    order = values.argsort(dim=1, descending=True, stable=True)
    return Reference(values.gather(1, order), index.gather(1, order), logits.shape[1])


def some_logits(rows, width, seed=0):
    """Logits of which each row has a few that stand out, some classes more often than others."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, width)) + np.linspace(1, 0, width)
    logits[np.arange(rows), rng.integers(0, width, rows)] += 5
    return logits.astype(np.float32)


def nearest_levels(values, bits):
    """The nearest of ``2**bits`` numbers from the smallest to the largest finite value, slowly."""
    values = values.numpy().astype(np.float64)
    there = np.isfinite(values)
    if not there.any():
        return values
    grid = np.linspace(values[there].min(), values[there].max(), 2**bits)
    nearest = values.copy()
    nearest[there] = grid[np.abs(values[there][:, None] - grid).argmin(1)]
    return nearest


def assert_comes_back(values, index, reference, bits):
    """Through the bytes of a whole message; return its coded bytes and what they should cost."""
    payload, model_bits = CodedLogits.of(values, index, reference, bits, 3, len(values))
    shapes = {"logits": (len(values), reference.width), "texts": (len(values),)}
    received = decode(encode(payload), shapes)
    assert received == payload
    assert list(received.numbers()) == []
    back, back_index = received.read(reference)
    assert back.dtype == torch.float32
    assert torch.equal(back_index, index)
    nearest = nearest_levels(values, bits)
    # In the middle between two levels, rounding may fall on either side.
    there = np.isfinite(nearest)
    assert (back.numpy()[~there] == -np.inf).all()
    sent, step = values.numpy()[there].astype(float), payload.scale.step
    off = np.abs(back.numpy()[there] - nearest[there])
    tie = np.abs(np.abs(sent - nearest[there]) - step / 2) < 1e-3 * step + 1e-6
    assert (off[~tie] < 1e-5).all()
    assert (off[tie] < step + 1e-5).all()
    return payload.data, model_bits


# ---- there and back


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("known", [0, 4])
def test_entries_come_back_with_any_bits(bits, known):
    logits = some_logits(60, 77)
    reference = reference_of(logits + 0.3, [known] * 60)
    assert_comes_back(*largest(logits, [6] * 60), reference, bits)
    assert_comes_back(*largest(logits, [6] * 60), Reference.nothing(60, 77), bits)


@pytest.mark.parametrize("known", [0, 5, 200])
def test_entries_beyond_the_candidates_are_named(known):
    logits = some_logits(30, 1000)
    values, index = largest(logits, [6] * 30)
    assert (index >= 128).any()
    reference = reference_of(np.roll(logits, 1, axis=1), [known] * 30)
    assert_comes_back(values, index, reference, 4)


@pytest.mark.parametrize("width", [1, 2, 5, 128, 129])
@pytest.mark.parametrize("known", [0, 1])
def test_all_entries_come_back(width, known):
    logits = some_logits(12, width)
    values, index = largest(logits, [width] * 12)
    assert_comes_back(values, index, reference_of(logits, [known] * 12), 3)


@pytest.mark.parametrize("counts", [[0] * 9, [0, 3, 0, 1, 2, 3, 0], [4] * 8 + [0] * 20 + [4]])
def test_positions_without_entries_come_back_empty(counts):
    logits = some_logits(len(counts), 20)
    values, index = largest(logits, counts, k=5)
    for known in (Reference.nothing(len(counts), 20), reference_of(logits, counts[::-1])):
        assert_comes_back(values, index, known, 4)


def test_positions_without_places_come_back_empty():
    values, index = largest(some_logits(9, 20), [0] * 9)
    assert_comes_back(values, index, Reference.nothing(9, 20), 4)


def test_no_positions_are_no_bytes():
    values, index = torch.zeros(0, 6), torch.zeros(0, 6, dtype=torch.int64)
    data, cost = assert_comes_back(values, index, Reference.nothing(0, 77), 4)
    assert (data, cost) == (b"", 0.0)


def test_constant_values_come_back_exactly():
    values, index = torch.full((10, 2), 1.7), torch.tensor([[1, 4]] * 10)
    for reference in (Reference.nothing(10, 6), Reference(values, index, 6)):
        payload, _ = CodedLogits.of(values, index, reference, 4, 0, 10)
        assert torch.equal(payload.read(reference)[0], values)


def test_entries_may_be_given_in_any_order():
    logits = some_logits(20, 40)
    values, index = largest(logits, [5] * 20)
    reference = reference_of(logits, [3] * 20)
    turned = CodedLogits.of(values.flip(1), index.flip(1), reference, 4, 0, 20)[0]
    assert turned == CodedLogits.of(values, index, reference, 4, 0, 20)[0]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 3, 9, 40, 140, 400]), st.integers(1, 8))
def test_any_entries_come_back_beside_any_reference(data, width, bits):
    rows, seed = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    most = min(width, data.draw(st.integers(1, 12)))
    counts = [most, *rng.integers(0, most + 1, rows - 1)]
    known = rng.integers(0, min(width, 150) + 1, rows)
    values, index = largest(some_logits(rows, width, seed), counts)
    reference = reference_of(some_logits(rows, width, seed + data.draw(st.booleans())), known)
    assert_comes_back(values, index, reference, bits)


def test_messages_are_written_and_read_alone_in_any_order():
    references = [reference_of(some_logits(25, 30, seed), [4] * 25) for seed in range(3)]
    sent = [largest(some_logits(25, 30, seed), [5] * 25) for seed in range(3)]

    def written(order):
        return {n: CodedLogits.of(*sent[n], references[n], 4, n, 25)[0] for n in order}

    payloads = written([0, 1, 2])
    assert payloads == written([2, 0, 1])
    read = {n: payloads[n].read(references[n]) for n in (0, 1, 2)}
    for n in (1, 2, 1, 0):
        for first, again in zip(read[n], payloads[n].read(references[n]), strict=True):
            assert torch.equal(first, again)


def test_a_reference_of_some_positions_reads_a_message_about_them():
    logits, at = some_logits(40, 30), torch.tensor([3, 4, 17, 30])
    values, index = largest(logits[at], [5] * 4)
    part = reference_of(logits, [6] * 40).at(at)
    by_hand = reference_of(logits[at], [6] * 4)
    assert torch.equal(part.index, by_hand.index)
    payload, _ = CodedLogits.of(values, index, part, 4, 0, 4)
    assert torch.equal(payload.read(by_hand)[1], index)


# ---- cost, small enough to be counted by hand


@pytest.mark.parametrize(
    ("width", "index", "k", "presence"),
    [
        (3, [0, 1], 2, 2),  # 0 is there, 1 is there: a bit each, then none is missing
        (3, [0, 2], 2, 2),  # 0 is there, 1 is not, so 2 has to be
        (3, [1, 2], 2, 1),  # 0 is not, so both others have to be
        (3, [0, 1, 2], 3, 0),
        (1, [0], 1, 0),
        (3, [], 2, 0),
        (77, [4], 2, 5),
        (77, [76], 1, 76),
        (1000, [127], 1, 128),
        (1000, [128], 1, 128 + np.log2(1000)),
        (1000, [3, 500, 999], 3, 128 + 2 * np.log2(1000)),
    ],
)
@pytest.mark.parametrize("bits", [1, 4])
def test_one_position_without_reference_costs_what_is_counted(width, index, k, presence, bits):
    behind = k - len(index)
    values = torch.tensor([[float(place) for place in range(len(index))] + [-torch.inf] * behind])
    named = torch.tensor([index + [0] * behind])
    cost = CodedLogits.of(values, named, Reference.nothing(1, width), bits, 0, 1)[1]
    assert cost == pytest.approx(np.log2(k + 1) + presence + bits * len(index))


def test_levels_near_the_expected_one_are_cheaper():
    # Of four levels 0, 1, 2, 3 the reference expects 0, 1, 3; 0, 0, 3 are sent.
    sent, expected = torch.tensor([[0.0], [0.0], [3.0]]), torch.tensor([[0.0], [1.2], [8.0]])
    index = torch.tensor([[5], [6], [7]])
    cost = CodedLogits.of(sent, index, Reference(expected, index, 77), 2, 0, 3)[1]
    weights = [2.0 ** -abs(np.arange(4) - level) for level in (0, 1, 3)]
    levels = [weights[0][0] / weights[0].sum(), weights[1][0] / weights[1].sum()]
    levels += [weights[2][3] / weights[2].sum()]
    # Each position: one entry of one at most, present at the first rank; prior halves, one block.
    assert cost == pytest.approx(3 * 1 + 3 * 1 - np.log2(levels).sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("known", [0, 6])
def test_the_bytes_are_hardly_more_than_the_model_says(bits, known):
    logits = some_logits(300, 77)
    rng = np.random.default_rng(5)
    noisy = (logits + 0.2 * rng.standard_normal(logits.shape)).astype(np.float32)
    values, index = largest(logits, [6] * 300)
    payload, cost = CodedLogits.of(values, index, reference_of(noisy, [known] * 300), bits, 0, 300)
    assert abs(8 * len(payload.data) - cost) < 0.05 * cost


def test_a_good_reference_saves_a_third():
    logits = 2 * some_logits(300, 77)
    rng = np.random.default_rng(5)
    noisy = (logits + 0.6 * rng.standard_normal(logits.shape)).astype(np.float32)
    values, index = largest(logits, [6] * 300)
    alone = len(assert_comes_back(values, index, Reference.nothing(300, 77), 4)[0])
    beside = len(assert_comes_back(values, index, reference_of(noisy, [10] * 300), 4)[0])
    assert beside < 2 / 3 * alone


def test_what_is_coded_does_not_exceed_a_plain_list_by_much():
    logits = some_logits(300, 77)
    payload, _ = CodedLogits.of(*largest(logits, [6] * 300), Reference.nothing(300, 77), 4, 0, 300)
    assert 8 * len(payload.data) < 300 * 6 * (7 + 4)


# ---- candidates


def slow_candidates(reference):
    often = Counter()
    for values, index in zip(reference.values.tolist(), reference.index.tolist(), strict=True):
        often.update(i for v, i in zip(values, index, strict=True) if np.isfinite(v))
    usual = sorted(range(reference.width), key=lambda entry: (-often[entry], entry))
    for values, index in zip(reference.values.tolist(), reference.index.tolist(), strict=True):
        known = {i: v for v, i in zip(values, index, strict=True) if np.isfinite(v)}
        order = [*known, *(entry for entry in usual if entry not in known)]
        order = order[: min(reference.width, 128)]
        yield order, [known.get(entry, np.nan) for entry in order]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 160), max_size=12),
    st.sampled_from([1, 2, 7, 77, 127, 128, 129, 300]),
    st.integers(0, 10**6),
)
def test_candidates_are_what_is_known_then_what_is_usual(known, width, seed):
    logits = some_logits(len(known), width, seed)
    reference = reference_of(logits, [min(each, width) for each in known])
    entries, values = reference.candidates()
    assert entries.shape == values.shape == (len(known), min(width, 128))
    for row, (order, hints) in enumerate(slow_candidates(reference)):
        assert len(set(order)) == len(order)
        assert entries[row].tolist() == order
        assert np.array_equal(values[row], hints, equal_nan=True)


def test_without_a_reference_candidates_go_by_their_number():
    entries, values = Reference.nothing(2, 300).candidates()
    assert entries.tolist() == [list(range(128))] * 2
    assert np.isnan(values).all()


# ---- refusals

SHAPES = {"logits": (20, 9), "texts": (10,)}


def message(version=1, texts=10, k=3, bits=4, low=0.0, step=1.0, data=b"abcd"):
    whole = struct.pack("<IIHBff", version, texts, k, bits, low, step) + data
    return {"": torch.tensor(list(whole), dtype=torch.uint8)}


def read_header(arrays, shapes=SHAPES):
    return decode(container.pack(CodedLogits.kind, {}, arrays), shapes)


def test_a_header_written_by_hand_is_read():
    expected = CodedLogits(7, 9, 2, Scale(-1.5, 0.25, 3), b"xyz\xff")
    arrays = message(7, 9, 2, 3, -1.5, 0.25, b"xyz\xff")
    assert read_header(arrays) == expected
    assert torch.equal(expected.to_arrays()[1][""], arrays[""])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (message(texts=11), "11 texts"),
        (message(texts=2**32 - 1), "not what is known"),
        (message(k=10), "10 coded entries"),
        (message(bits=0), "not what is known"),
        (message(bits=17), "not what is known"),
        (message(bits=255), "not what is known"),
        (message(low=float("nan")), "not finite"),
        (message(low=float("inf")), "not finite"),
        (message(step=float("nan")), "not finite"),
        (message(step=-float("inf")), "not finite"),
        ({"": message(data=b"")[""][:-1]}, "shorter"),
        ({"": torch.empty(0, dtype=torch.uint8)}, "shorter"),
        ({"": message()[""].to(torch.int8)}, "one array"),
        ({"": torch.zeros(20)}, "one array"),
        ({"x": message()[""]}, "one array"),
        (message() | {"x": torch.zeros(1)}, "one array"),
        ({}, "one array"),
    ],
)
def test_headers_that_cannot_be_are_refused(arrays, reason):
    with pytest.raises(WireError, match=reason):
        read_header(arrays)


@pytest.mark.parametrize("missing", SHAPES)
def test_coded_logits_that_this_method_does_not_send_are_refused(missing):
    with pytest.raises(WireError, match="not part"):
        read_header(message(), {name: s for name, s in SHAPES.items() if name != missing})


def test_room_for_very_many_entries_is_refused():
    with pytest.raises(WireError, match="too many"):
        read_header(message(k=50000), {"logits": (20000, 50257), "texts": (20000,)})


def test_more_entries_than_the_reference_is_wide_are_refused():
    with pytest.raises(WireError, match="too many"):
        CodedLogits(1, 2, 10, Scale(0.0, 1.0, 4), b"").read(Reference.nothing(2, 9))


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_levels_of_more_than_eight_bits_are_refused(bits):
    with pytest.raises(WireError):
        read_header(message(bits=bits))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_scale_that_leaves_float32_is_refused(sign):
    with pytest.raises(WireError):
        read_header(message(low=sign * 3e38, step=sign * 3e38))


# ---- bytes that mean nothing


def read_or_refused(payload, reference):
    try:
        values, index = payload.read(reference)
    except WireError:
        return
    there = torch.isfinite(values)
    assert values.shape == index.shape == (len(reference.values), payload.k)
    assert (values[~there] == -torch.inf).all()
    assert not (index < 0).any()
    assert not (index >= reference.width).any()
    for row, own in zip(index, there, strict=True):
        entries = row[own].tolist()
        assert own.tolist() == sorted(own.tolist(), reverse=True)
        assert entries == sorted(set(entries))


@settings(max_examples=80, deadline=None)
@given(
    st.data(),
    st.binary(max_size=120),
    st.sampled_from([1, 2, 9, 77, 140, 1000]),
    st.integers(1, 8),
)
def test_any_bytes_are_read_as_entries_that_exist_or_refused(data, garbage, width, bits):
    rows = data.draw(st.integers(0, 20))
    k = data.draw(st.integers(0, min(width, 12)))
    low = data.draw(st.floats(-(2.0**99), 2.0**99, width=32))
    step = data.draw(st.floats(-(2.0**99), 2.0**99, width=32))
    reference = reference_of(some_logits(rows, width), [min(width, 5)] * rows)
    if data.draw(st.booleans()):
        reference = Reference.nothing(rows, width)
    read_or_refused(CodedLogits(1, rows, k, Scale(low, step, bits), garbage), reference)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 90)
)
def test_altered_cut_or_longer_bytes_are_read_as_entries_or_refused(changes, keep):
    logits = some_logits(20, 140)
    reference = reference_of(logits, [6] * 20)
    payload, _ = CodedLogits.of(*largest(logits, [4] * 20), reference, 4, 0, 20)
    data = bytearray(payload.data[:-keep] if keep % 3 else payload.data + bytes(keep))
    for place, value in changes:
        if data:
            data[place % len(data)] = value
    altered = CodedLogits(0, 20, 4, payload.scale, bytes(data))
    read_or_refused(altered, reference)
    read_or_refused(altered, reference.at(torch.arange(10)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=3))
def test_altered_headers_are_read_or_refused(changes):
    whole = message()[""].clone()
    for place, value in changes:
        whole[place % len(whole)] = value
    whole[10] %= 9  # bits: see above for more than eight
    whole[[14, 18]] %= 64  # exponents of a scale that stays within float32
    try:
        payload = read_header({"": whole})
    except WireError:
        return
    assert payload.k <= 9
    assert payload.texts <= 10
    read_or_refused(payload, Reference.nothing(20, 9))
