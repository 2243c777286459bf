"""Sparse logits there and back, their size to the bit, and what is refused."""

import math
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.wire import SparseLogits, WireError, container, decode, encode, message_bits

LIST, BITMAP, DENSE = range(3)
BITS = [2, 3, 4, 5, 6, 8, 16, 32]


def entries(counts, width, k=None, seed=0):
    """Random entries: ``counts`` of them at each position, behind them -inf and 0."""
    rng = np.random.default_rng(seed)
    k = max(counts, default=0) if k is None else k
    values, index = np.full((len(counts), k), -np.inf, np.float32), np.zeros((len(counts), k), int)
    for row, count in enumerate(counts):
        index[row, :count] = np.sort(rng.choice(width, count, replace=False))
        values[row, :count] = 3 * rng.standard_normal(count)
    return torch.from_numpy(values), torch.from_numpy(index)


def little(values, bits):
    """Integers as bytes, the first in the lowest bits."""
    whole = sum(int(value) << place * bits for place, value in enumerate(values))
    return torch.tensor(list(whole.to_bytes(math.ceil(len(values) * bits / 8), "little"))).byte()


def assert_rounded(back, sent, bits):
    """Equal, or as near as ``bits`` allow; -inf where -inf was."""
    back, sent = back.numpy().astype(float), sent.numpy().astype(float)
    there = np.isfinite(sent)
    assert back.shape == sent.shape
    assert (back[~there] == -np.inf).all()
    if bits > 8:
        float_type = {16: np.float16, 32: np.float32}[bits]
        assert (back[there] == sent[there].astype(float_type)).all()
    elif there.any():
        step = (sent[there].max() - sent[there].min()) / (2**bits - 1)
        assert np.abs(back[there] - sent[there]).max() <= step / 2 + 1e-5
        levels = (back[there] - sent[there].min()) / step if step else np.zeros(1)
        assert np.allclose(levels, np.rint(levels), atol=1e-3)


FORMS = {
    "list": ([3] * 6, 40, LIST),
    "bitmap": ([20] * 6, 40, BITMAP),
    "dense": ([5] * 6, 5, DENSE),
    "lists of any length": ([0, 3, 1, 3], 40, LIST),
    "bitmaps of any number": ([20, 0, 7, 20], 40, BITMAP),
    "dense but for one entry": ([4, 4, 3], 4, BITMAP),
    "one class": ([1] * 4, 1, DENSE),
    "one class, sometimes": ([1, 0, 1], 1, LIST),
    "many tokens": ([2, 2, 1], 50257, LIST),
    "no entries": ([0] * 3, 7, DENSE),
    "no positions": ([], 7, DENSE),
}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back(form, bits):
    counts, width, coding = FORMS[form]
    values, index = entries(counts, width)
    message = encode(SparseLogits(values, index, width, bits))
    assert container.unpack(message)[2]["n"].tolist() == [
        *(width, len(counts), max(counts, default=0), coding, bits)
    ]
    back = decode(message, {"logits": (len(counts), width)})
    assert torch.equal(back.index, index)
    assert_rounded(back.values, values, bits)
    assert (back.width, back.value_bits) == (width, bits)
    assert back.texts is back.rest is back.projections is None


@pytest.mark.parametrize("bits", BITS)
def test_texts_rest_and_projections_come_back(bits):
    values, index = entries([3, 0, 2, 3], 9, seed=1)
    texts, rest = torch.tensor([0, 4, 17]), torch.tensor([-1.5, 0.3, 7.1, 0.0])
    projections = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    sent = SparseLogits(values, index, 9, 16, texts, rest, projections, bits)
    back = decode(encode(sent), {"logits": (30, 9), "texts": (18,), "projections": (18, 2, 4)})
    assert torch.equal(back.texts, texts)
    assert torch.equal(back.rest, rest.half().float())
    assert_rounded(back.projections, projections, bits)
    assert back.projection_bits == bits
    assert all(bool(torch.isfinite(each).all()) for each in back.numbers())


def test_columns_that_no_position_fills_are_not_sent():
    values, index = entries([2, 1], 9, k=5)
    back = decode(encode(SparseLogits(values, index, 9)), {"logits": (2, 9)})
    assert torch.equal(back.index, index[:, :2])
    assert_rounded(back.values, values[:, :2], 16)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_entries_come_back(data):
    width, seed = data.draw(st.integers(1, 90)), data.draw(st.integers(0, 10**6))
    counts = data.draw(st.lists(st.integers(0, width), max_size=12))
    values, index = entries(counts, width, seed=seed)
    bits = data.draw(st.sampled_from(BITS))
    shapes = {"logits": (len(counts) + data.draw(st.integers(0, 3)), width)}
    message = encode(SparseLogits(values, index, width, bits))
    back = decode(message, shapes)
    assert torch.equal(back.index, index)
    assert_rounded(back.values, values, bits)
    again = encode(SparseLogits(back.values, back.index, width, bits))
    assert len(again) == len(message)


def test_messages_are_read_alone_in_any_order():
    shapes = {"logits": (4, 20)}
    messages = [
        encode(SparseLogits(*entries(counts, 20, seed=bits), 20, bits))
        for counts, bits in (([3] * 4, 4), ([20] * 4, 16), ([0, 1, 2, 0], 2), ([9] * 4, 8))
    ]
    first = [decode(message, shapes) for message in messages]
    last = [decode(message, shapes) for message in messages[::-1]][::-1]
    for one, other in zip(first, last, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.index, other.index)


# ---- bytes by hand and sizes


def test_a_list_written_by_hand():
    values = torch.tensor([[1.0, -2.0], [0.5, -torch.inf]])
    payload = SparseLogits(values, torch.tensor([[1, 5], [4, 0]]), 8)
    _, arrays = payload.to_arrays()
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "n": [8, 2, 2, LIST, 16],
        "c": [0b0110],  # 2 and 1
        "i": [0b00_101_001, 0b1],  # 1, 5, 4
        "v": [1.0, -2.0, 0.5],
    }


def test_a_bitmap_written_by_hand():
    index = torch.tensor([[0, 1, 3], [1, 2, 3]])
    _, arrays = SparseLogits(torch.ones(2, 3), index, 4, 2).to_arrays()
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "n": [4, 2, 3, BITMAP, 2],
        "i": [0b1110_1011],
        "v": [0, 0],
        "s": [1.0, 0.0],
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 200), st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_the_shorter_way_to_say_which_entries_is_taken(width, counts):
    counts = [min(count, width) for count in counts]
    _, arrays = SparseLogits(*entries(counts, width), width).to_arrays()
    each = math.ceil(math.log2(width))
    ways = [sum(counts) * each, len(counts) * width]
    if min(counts) == width or max(counts) == 0:
        assert "i" not in arrays
    else:
        assert arrays["i"].numel() == math.ceil(min(ways) / 8)


def a_message(data, bits, projection_bits):
    """A payload with as many entries everywhere, and the size that is told for it."""
    positions, width = data.draw(st.integers(0, 30)), data.draw(st.integers(1, 90))
    k = data.draw(st.integers(0, width if positions else 0))
    values, index = entries([k] * positions, width)
    texts = data.draw(st.none() | st.integers(0, 9))
    shape = data.draw(st.none() | st.tuples(st.just(texts or 4), st.integers(1, 3), st.just(5)))
    payload = SparseLogits(
        values,
        index,
        width,
        bits,
        None if texts is None else torch.arange(texts),
        None,
        None if shape is None else torch.randn(shape),
        projection_bits,
    )
    return payload, message_bits(positions, k, width, bits, texts, shape, projection_bits)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([16, 32]), st.sampled_from([16, 32]))
def test_the_size_of_a_message_of_floats_is_known_before_it_is_written(data, bits, projection):
    payload, told = a_message(data, bits, projection)
    assert told == 8 * len(encode(payload))


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(BITS), st.sampled_from(BITS))
def test_the_size_of_any_message_is_known_before_it_is_written(data, bits, projection):
    payload, told = a_message(data, bits, projection)
    assert told == 8 * len(encode(payload))


@pytest.mark.parametrize(("k", "megabits"), [(8, 0.184), (20, 0.397), (32, 0.589), (77, 1.232)])
def test_a_thousand_texts_of_77_classes_cost_what_arithmetic_says(k, megabits):
    extra = message_bits(1000, k, 77, 16) - megabits * 1e6
    assert 0 < extra < 600  # container and header


def test_projections_cost_their_numbers():
    both = message_bits(1000, 20, 77, 16, None, (1000, 1, 8), 16)
    assert 0.525e6 < both < 0.526e6
    assert 128_000 < both - message_bits(1000, 20, 77, 16) < 128_400


@pytest.mark.parametrize(("k", "megabits"), [(8, 0.256), (32, 1.024), (100, 3.2)])
def test_a_thousand_texts_of_a_vocabulary_cost_what_arithmetic_says(k, megabits):
    assert 0 < message_bits(1000, k, 50257, 16) - megabits * 1e6 < 600


# ---- refusals

SHAPES = {"logits": (3, 6), "texts": (5,), "projections": (5, 1, 2)}
PLAIN = {  # three positions of two entries of six, and everything that can go along
    "n": torch.tensor([6, 3, 2, LIST, 16], dtype=torch.int32),
    "i": little([0, 2, 1, 3, 2, 5], 3),
    "v": torch.arange(6).half(),
}
WHOLE = PLAIN | {
    "t": torch.tensor([0, 3, 4], dtype=torch.int32),
    "r": torch.zeros(3).half(),
    "d": torch.tensor([3, 1, 2, 16], dtype=torch.int32),
    "h": torch.ones(6).half(),
}


def ints(*numbers):
    return torch.tensor(numbers, dtype=torch.int32)


def read(changes, of=WHOLE, shapes=SHAPES):
    arrays = {name: array for name, array in (of | changes).items() if array is not None}
    return decode(container.pack(SparseLogits.kind, {}, arrays), shapes)


def few_bits(scale, values=None):
    """Values of four bits."""
    values = little([0, 1, 2, 3, 4, 15], 4) if values is None else values
    return {"n": ints(6, 3, 2, LIST, 4), "v": values, "s": scale}


def test_what_is_tampered_with_below_is_fine_by_itself():
    payload = read({})
    assert payload.index.tolist() == [[0, 2], [1, 3], [2, 5]]
    assert payload.values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert payload.texts.tolist() == [0, 3, 4]
    assert payload.projections.tolist() == [[[1, 1]]] * 3
    levels = read(few_bits(torch.tensor([-1.0, 0.5])))
    assert levels.values.tolist() == [[-1, -0.5], [0, 0.5], [1, 6.5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": ints(7, 3, 2, LIST, 16)}, "do not fit"),
        ({"n": ints(6, 4, 2, LIST, 16)}, "do not fit"),
        ({"n": ints(6, -1, 2, LIST, 16)}, "do not fit"),
        ({"n": ints(6, 3, 7, LIST, 16)}, "do not fit"),
        ({"n": ints(6, 3, -2, LIST, 16)}, "do not fit"),
        ({"n": None}, "header"),
        ({"n": ints(6, 3, 2, LIST)}, "header"),
        ({"n": ints(6, 3, 2, LIST, 16).long()}, "header"),
        ({"n": ints(6, 3, 2, LIST, 16)[None]}, "header"),
        ({"n": ints(6, 3, 2, 3, 16)}, "which entries"),
        ({"n": ints(6, 3, 2, -1, 16)}, "which entries"),
        ({"i": None}, "which entries"),
        ({"n": ints(6, 3, 2, DENSE, 16)}, "without index"),
        ({"n": ints(6, 2, 2, LIST, 16)}, "not hold"),
        ({"n": ints(6, 3, 1, LIST, 16)}, "not hold"),
    ],
)
def test_headers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"i": little([2, 0, 1, 3, 2, 5], 3)}, "not ascending"),
        ({"i": little([0, 2, 1, 3, 5, 5], 3)}, "not ascending"),
        ({"i": little([0, 2, 1, 3, 2, 6], 3)}, "not ascending, or names"),
        ({"i": little([0, 7, 1, 3, 2, 5], 3)}, "not ascending, or names"),
        ({"i": little([0, 2, 1, 3], 3)}, "do not hold"),
        ({"i": torch.zeros(4).byte()}, "do not hold"),
        ({"i": PLAIN["i"].to(torch.int8)}, "do not hold"),
        ({"n": ints(6, 3, 2, BITMAP, 16), "i": little([0b11, 0b110, 0b111], 6)}, "bitmap"),
        ({"n": ints(6, 3, 2, BITMAP, 16), "i": little([0, 0, 0], 6)}, "bitmap"),
        ({"n": ints(6, 3, 2, BITMAP, 16), "i": little([0b11, 0b110], 6)}, "do not hold"),
        ({"c": little([2, 3, 2], 2)}, "more entries"),
        ({"c": little([2, 1, 2], 2)}, "not hold"),
        ({"c": little([2, 2, 2, 2, 2], 2)}, "do not hold"),
        ({"c": torch.zeros(1, dtype=torch.int16)}, "do not hold"),
    ],
)
def test_entries_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": None}, "does not hold"),
        ({"v": torch.ones(5).half()}, "does not hold"),
        ({"v": torch.ones(6)}, "does not hold"),
        ({"v": torch.ones(6).bfloat16()}, "does not hold"),
        ({"v": torch.ones(6).short()}, "does not hold"),
        ({"n": ints(6, 3, 2, LIST, 32)}, "does not hold"),
        ({"n": ints(6, 3, 2, LIST, 0)}, "of 0 bits"),
        ({"n": ints(6, 3, 2, LIST, 1)}, "of 1 bits"),
        ({"n": ints(6, 3, 2, LIST, 9)}, "of 9 bits"),
        ({"n": ints(6, 3, 2, LIST, -4)}, "of -4 bits"),
        (few_bits(None), "of 4 bits"),
        (few_bits(torch.zeros(3)), "another form"),
        (few_bits(torch.zeros(2).half()), "another form"),
        (few_bits(torch.zeros(1, 2)), "another form"),
        (few_bits(torch.tensor([torch.nan, 1])), "not finite"),
        (few_bits(torch.tensor([0, torch.inf])), "not finite"),
        (few_bits(torch.tensor([-torch.inf, 1])), "not finite"),
        (few_bits(torch.zeros(2), torch.zeros(2).byte()), "do not hold"),
        (few_bits(torch.zeros(2), torch.zeros(3)), "do not hold"),
    ],
)
def test_values_of_another_form_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"t": ints(0, 4, 3)},
        {"t": ints(3, 3, 4)},
        {"t": ints(0, 3, 5)},
        {"t": ints(-1, 3, 4)},
        {"t": ints(0, 3, 4)[None]},
        {"t": torch.tensor(3, dtype=torch.int32)},
        {"t": torch.tensor([0, 3, torch.nan])},
    ],
)
def test_texts_that_are_no_ascending_choice_are_refused(changes):
    with pytest.raises(WireError, match="texts"):
        read(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": None}, "header"),
        ({"d": ints(3, 1, 2)}, "header"),
        ({"d": ints(3, 1, 2, 16).long()}, "header"),
        ({"d": ints(5, 1, 2, 16)}, "shape"),
        ({"d": ints(3, 2, 1, 16)}, "shape"),
        ({"d": ints(-3, -1, 2, 16)}, "shape"),
        ({"t": ints(0, 3)}, "shape"),
        ({"t": None}, "shape"),
        ({"d": ints(3, 1, 2, 32)}, "does not hold"),
        ({"d": ints(3, 1, 2, 4)}, "of 4 bits"),
        ({"h": torch.ones(5).half()}, "does not hold"),
        ({"h": torch.ones(6)}, "does not hold"),
        ({"d": ints(3, 1, 2, 8), "h": torch.ones(6).byte(), "p": torch.ones(3)}, "another form"),
        ({"r": torch.zeros(2).half()}, "rest"),
        ({"r": torch.zeros(3, 1).half()}, "rest"),
    ],
)
def test_projections_and_rest_of_another_shape_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes)


@pytest.mark.parametrize("missing", SHAPES)
def test_what_this_method_does_not_send_is_refused(missing):
    known = {name: shape for name, shape in SHAPES.items() if name != missing}
    with pytest.raises(WireError, match=f"{missing} are not part"):
        read({}, shapes=known)


@pytest.mark.parametrize(
    "changes",
    [
        {"t": torch.tensor([0.5, 3.5, 4.5])},
        {"t": torch.tensor([0, 3, 4]).byte()},
        {"r": torch.zeros(3, dtype=torch.int64)},
        {"r": torch.zeros(3)},
    ],
)
def test_texts_and_rest_of_another_type_are_refused(changes):
    with pytest.raises(WireError):
        read(changes)


@pytest.mark.parametrize("place", [0, 1])
def test_a_listed_value_of_minus_infinity_is_refused(place):
    values = PLAIN["v"].clone()
    values[place] = -torch.inf
    with pytest.raises(WireError):
        read({"v": values}, PLAIN)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_scale_that_leaves_float32_is_refused(sign):
    with pytest.raises(WireError):
        read(few_bits(sign * torch.tensor([3e38, 3e38])), PLAIN)


@pytest.mark.parametrize("coding", [LIST, DENSE])
def test_room_that_hardly_any_position_fills_is_refused(coding):
    arrays = {
        "n": ints(1000, 3000, 1000, coding, 16),
        "c": torch.zeros(3000 * 10 // 8, dtype=torch.uint8),
        "i": torch.empty(0, dtype=torch.uint8),
        "v": torch.empty(0).half(),
    }
    with pytest.raises(WireError, match="lopsided"):
        read(arrays, {}, {"logits": (3000, 1000)})


def test_one_long_position_among_short_ones_is_no_reason_to_refuse():
    values, index = entries([900] + [0] * 99, 1000)
    back = decode(encode(SparseLogits(values, index, 1000)), {"logits": (100, 1000)})
    assert torch.equal(back.index, index)


@pytest.mark.parametrize("coding", [LIST, BITMAP, DENSE])
def test_missing_values_are_noticed_before_places_are_made_for_them(coding):
    arrays = {"n": ints(1000, 1000, 1000, coding, 16), "i": PLAIN["i"], "v": torch.ones(2).half()}
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            read(arrays, {}, {"logits": (1000, 1000)})
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# ---- altered messages with a checksum that fits


def resealed(message, changes):
    body = bytearray(message[:-4])
    for place, value in changes:
        body[place % len(body)] = value
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def read_or_refused(message, shapes):
    try:
        payload = decode(message, shapes)
    except WireError:
        return
    for each in payload.numbers():
        assert torch.isfinite(each).dtype == torch.bool
    if isinstance(payload, SparseLogits):
        there = torch.isfinite(payload.values)
        assert payload.values.shape == payload.index.shape
        assert (payload.index[there] >= 0).all()
        assert (payload.index[there] < payload.width).all()


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4)
ALTERED = {
    "list": ([2, 2, 2], 6, 16),
    "bitmap": ([4, 4, 4], 6, 32),
    "dense": ([6, 6, 6], 6, 16),
    "any length": ([1, 0, 2], 6, 16),
    "few bits": ([1, 0, 2], 6, 5),
}


@pytest.mark.parametrize("form", ALTERED)
@settings(max_examples=80, deadline=None)
@given(changes=CHANGES, more=st.booleans())
def test_altered_bytes_are_read_or_refused(form, changes, more):
    counts, width, bits = ALTERED[form]
    extra = (torch.arange(3), torch.zeros(3), torch.ones(3, 1, 2), min(bits, 16)) if more else ()
    message = encode(SparseLogits(*entries(counts, width), width, bits, *extra))
    read_or_refused(message, SHAPES)
    read_or_refused(resealed(message, changes), SHAPES)


ARRAY = st.tuples(
    st.sampled_from([torch.uint8, torch.int32, torch.float16, torch.float32, torch.int64]),
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(0, 7),
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["i", "c", "v", "s", "t", "r", "d", "h", "p", "x"]), ARRAY),
    st.tuples(*[st.integers(-1, 7)] * 3, st.integers(-1, 3), st.sampled_from([*BITS, 0, 7, 9])),
    st.booleans(),
)
def test_any_arrays_under_known_names_are_read_or_refused(arrays, header, plain):
    made = {name: torch.full(shape, fill).to(kind) for name, (kind, shape, fill) in arrays.items()}
    made = WHOLE | made if plain else {"n": ints(*header)} | made
    read_or_refused(container.pack(SparseLogits.kind, {}, made), SHAPES)
