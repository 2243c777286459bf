"""Rank slices there and back, their size to the bit, and what is refused."""

import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.wire import Dense, RankSlices, WireError, container, decode, encode
from airtune.wire.rank_slices import empty_bits, rounded_stochastically, slice_bits

BITS = [2, 3, 4, 5, 6, 8, 16, 32]
FEW = [2, 3, 4, 5, 6, 8]
PARTS = {"x.q": (5, 7), "x.v": (4, 2), "y.q": (6,)}
RANK = 4
SHAPES = {
    **{f"slices.{name}": (RANK, *parts) for name, parts in PARTS.items()},
    "head.weight": (2, 3),
    "head.bias": (2,),
    "scores": (3,),
}
SCORES = torch.tensor([0.5, 0.25, 0.0])


def message(kept, bits=32, seed=0, **more):
    """A message with these components of 12, and a head of small whole numbers."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.zeros(12, dtype=torch.bool)
    mask[list(kept)] = True
    slices = {
        name: torch.randn(int(each.sum()), sum(parts), generator=draw)
        for (name, parts), each in zip(PARTS.items(), mask.split(RANK), strict=True)
    }
    whole = {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.tensor([-1.0, 2.0])}
    return RankSlices(mask, slices, PARTS, bits, **{"scores": SCORES, "tensors": whole, **more})


FORMS = {
    "some": [0, 3, 5, 8, 9, 10],
    "all": range(12),
    "none": [],
    "one": [11],
    "none of the second": [1, 2, 9],
}


def nearest(values, parts, bits):
    """Values on the grid of their parts: (expected, step), by NumPy in double precision."""
    values = values.numpy().astype(float)
    largest = 2 ** (bits - 1) - 1
    found, steps, place = np.zeros_like(values), np.zeros_like(values), 0
    for width in parts:
        own = values[:, place : place + width]
        step = np.abs(own).max(axis=1, initial=0.0, keepdims=True) / largest
        found[:, place : place + width] = np.rint(own / np.where(step > 0, step, 1.0)) * step
        steps[:, place : place + width] = step
        place += width
    return found, steps


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back(form, bits):
    sent = message(FORMS[form], bits)
    back = decode(encode(sent), SHAPES)
    assert torch.equal(back.kept, sent.kept)
    assert (dict(back.parts), back.value_bits) == (PARTS, bits)
    assert list(back.slices) == list(PARTS)
    for name, values in sent.slices.items():
        found = back.slices[name]
        assert found.shape == values.shape and found.dtype == torch.float32
        if bits == 32:
            assert torch.equal(found, values)
        elif bits == 16:
            assert torch.equal(found, values.half().float())
        else:
            expected, steps = nearest(values, PARTS[name], bits)
            assert found.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            assert (np.abs(found.numpy() - values.numpy()) <= 0.5001 * steps).all()
    assert torch.equal(back.scores, SCORES)
    assert set(back.tensors) == set(sent.tensors)
    assert all(torch.equal(back.tensors[name], sent.tensors[name]) for name in sent.tensors)
    assert all(bool(torch.isfinite(each).all()) for each in back.numbers())


def test_without_scores_and_whole_tensors():
    back = decode(encode(message([0, 7], scores=None, tensors={})), SHAPES)
    assert back.scores is None and back.tensors == {}


@pytest.mark.parametrize("bits", BITS)
def test_whole_tensors_and_scores_travel_with_sixteen_bits_or_more(bits):
    third = torch.tensor([1 / 3, -1 / 3])
    sent = message([0], bits, scores=torch.full((3,), 1 / 3), tensors={"head.bias": third})
    back = decode(encode(sent), SHAPES)
    assert torch.equal(back.tensors["head.bias"], third if bits == 32 else third.half().float())
    assert torch.equal(back.scores, torch.full((3,), 1 / 3).half().float())


@pytest.mark.parametrize("bits", FEW)
def test_zeros_come_back_as_zeros(bits):
    sent = message(range(12), bits)
    for values in sent.slices.values():
        values.zero_()
    sent.slices["x.q"][2, 5] = 4.0  # the second part of one slice only
    back = decode(encode(sent), SHAPES)
    assert torch.equal(back.slices["x.q"], sent.slices["x.q"])
    assert not back.slices["x.v"].any() and not back.slices["y.q"].any()


@pytest.mark.parametrize("bits", FEW)
def test_parts_have_scales_of_their_own(bits):
    sent = message(range(12), bits)
    sent.slices["x.q"][:, :5] *= 1e6
    sent.slices["x.q"][1] *= 1e-3
    back = decode(encode(sent), SHAPES)
    for rows in (sent.slices["x.q"], back.slices["x.q"]):
        assert rows.isfinite().all()
    expected, _ = nearest(sent.slices["x.q"], PARTS["x.q"], bits)
    assert back.slices["x.q"].numpy() == pytest.approx(expected, rel=1e-5, abs=1e-9)


# ---- bytes


def test_bytes_written_by_hand():
    slices = {"m": torch.tensor([[1.0, -2.0, 3.0, -0.5]])}
    sent = RankSlices(torch.tensor([False, True, False]), slices, {"m": (1, 3)}, 3)
    meta, arrays = sent.to_arrays()
    assert meta == {} and set(arrays) == {"k", "v", "s3"}
    assert arrays["k"].tolist() == [0b010]
    # Largest level 3, steps 1/3 and 1: levels 3, -2, 3, -0.5 (to the even 0), each plus 3.
    assert arrays["v"].tolist() == [0b110 | 1 << 3 | (0b110 << 6 & 255), 0b110 >> 2 | 3 << 1]
    assert arrays["s3"].tolist() == pytest.approx([1 / 3, 1.0])
    back = decode(encode(sent), {"slices.m": (3, 1, 3)})
    assert back.slices["m"].tolist() == [[1.0, -2.0, 3.0, 0.0]]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", FORMS)
def test_the_size_is_the_empty_message_and_its_slices(form, bits):
    sent = message(FORMS[form], bits)
    expected = empty_bits(SHAPES, bits, sent.tensors) + sum(
        len(values) * slice_bits(PARTS[name], bits) for name, values in sent.slices.items()
    )
    actual = 8 * len(encode(sent))
    if bits % 8 == 0:
        assert actual == expected
    else:
        assert 0 <= expected - actual <= 7


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=12, unique=True), st.sampled_from(BITS), st.booleans())
def test_no_message_is_larger_than_the_scheduler_counted(kept, bits, scored):
    shapes = SHAPES if scored else {n: s for n, s in SHAPES.items() if n != "scores"}
    sent = message(kept, bits, scores=SCORES if scored else None)
    counted = empty_bits(shapes, bits, sent.tensors) + sum(
        len(values) * slice_bits(PARTS[name], bits) for name, values in sent.slices.items()
    )
    assert counted - 7 <= 8 * len(encode(sent)) <= counted


def test_the_bits_of_a_slice_by_hand():
    assert slice_bits((5, 7), 32) == 12 * 32
    assert slice_bits((5, 7), 16) == 12 * 16
    assert slice_bits((5, 7), 3) == 12 * 3 + 2 * 32
    assert slice_bits((6,), 8) == 6 * 8 + 32


# ---- stochastic rounding


def draws(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bits", FEW)
def test_rounding_at_random_is_unbiased_and_to_a_neighbour_on_the_grid(bits):
    one = torch.randn(1, 9, generator=draws(0))
    count = 4000
    rounded = rounded_stochastically(one.repeat(count, 1), (4, 5), bits, draws(1)).double().numpy()
    exact = one.double().numpy()
    _, steps = nearest(one, (4, 5), bits)
    levels = rounded / steps
    assert levels == pytest.approx(np.rint(levels), abs=1e-4)
    assert (np.abs(rounded - exact) <= 1.0001 * steps).all()
    # The mean of so many draws, each within a step: five standard deviations.
    assert (np.abs(rounded.mean(0) - exact) <= 5 * 0.5 * steps / math.sqrt(count) + 1e-6).all()
    assert (rounded.std(0) > 0.05 * steps).sum() >= 5  # and it is random
    # The largest of each part is on the grid, and does not move.
    for part in (slice(0, 4), slice(4, 9)):
        place = np.abs(exact[0, part]).argmax()
        assert np.ptp(rounded[:, part][:, place]) == 0


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FEW), st.integers(0, 10**6), st.floats(-30, 30))
def test_what_was_rounded_survives_the_way_exactly(bits, seed, magnitude):
    draw = draws(seed)
    sent = message(range(12), bits, seed)
    slices = {
        name: rounded_stochastically(10**magnitude * values, PARTS[name], bits, draw)
        for name, values in sent.slices.items()
    }
    back = decode(encode(RankSlices(sent.kept, slices, PARTS, bits)), SHAPES)
    for name, values in slices.items():
        assert torch.equal(back.slices[name], values)


def test_rounding_is_that_of_its_generator_and_leaves_its_input_alone():
    values = torch.randn(6, 9, generator=draws(0))
    copy = values.clone()
    first, second, other = (rounded_stochastically(values, (4, 5), 3, draws(s)) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(values, copy)
    assert not rounded_stochastically(torch.zeros(2, 9), (4, 5), 3, draws(0)).any()


# ---- what is refused

PLAIN = message([0, 3, 5]).to_arrays()[1]
FOUR = message([0, 3, 5], 4).to_arrays()[1]


def read(changes, base=None, shapes=SHAPES):
    arrays = {**(PLAIN if base is None else base), **changes}
    there = {name: array for name, array in arrays.items() if array is not None}
    return decode(container.pack(RankSlices.kind, {}, there), shapes)


def test_what_the_refused_are_made_of_is_read():
    assert len(read({}).slices["x.q"]) == len(read({}, FOUR).slices["x.q"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": None}, "not part"),
        ({"k": PLAIN["k"][:1]}, "do not hold"),
        ({"k": torch.zeros(3).byte()}, "do not hold"),
        ({"k": PLAIN["k"].to(torch.int8)}, "do not hold"),
        ({"k": torch.ones(12)}, "do not hold"),
        ({"k": torch.tensor([0xFF, 0x0F]).byte()}, "does not hold"),
        ({"k": torch.zeros(2).byte()}, "does not hold 0 values"),
        ({"v": None}, "no values"),
        ({"v": PLAIN["v"][1:]}, "does not hold"),
        ({"v": torch.cat([PLAIN["v"], torch.zeros(1)])}, "does not hold"),
        ({"v": PLAIN["v"][None]}, "does not hold"),
        ({"v": torch.tensor(1.0)}, "does not hold"),
        ({"v": PLAIN["v"].bfloat16()}, "does not hold"),
        ({"v": PLAIN["v"].int()}, "does not hold"),
        ({"v": PLAIN["v"].byte()}, "does not hold"),
        ({"s4": FOUR["s4"]}, "do not hold"),
    ],
)
def test_other_counts_and_types_than_the_bitmap_says_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes)


def scales(value):
    changed = FOUR["s4"].clone()
    changed[1] = value
    return {"s4": changed}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (scales(-1e-3), "negative"),
        (scales(-torch.inf), "negative"),
        (scales(torch.nan), "not finite"),
        (scales(torch.inf), "not finite"),
        ({"s4": FOUR["s4"][1:]}, "scales"),
        ({"s4": FOUR["s4"][None]}, "scales"),
        ({"s4": FOUR["s4"].half()}, "scales"),
        ({"s4": FOUR["s4"].long()}, "scales"),
        ({"s4": torch.tensor(1.0)}, "scales"),
        ({"s4": None, "s5": FOUR["s4"]}, "do not hold"),
        ({"s4": None}, "does not hold"),
        ({"s4": None, "s7": FOUR["s4"]}, "does not hold"),
        ({"v": FOUR["v"][1:]}, "do not hold"),
        ({"v": FOUR["v"].to(torch.int8)}, "do not hold"),
        ({"v": FOUR["v"].float()}, "do not hold"),
    ],
)
def test_scales_of_another_form_are_refused(changes, message):
    with pytest.raises(WireError, match=message):
        read(changes, FOUR)


@pytest.mark.parametrize(
    "scores",
    [
        SCORES.half()[:2],
        torch.zeros(4).half(),
        SCORES.half()[None],
        SCORES,
        SCORES.bfloat16(),
        SCORES.byte(),
        torch.tensor([0.5, -0.25, 0.0]).half(),
        torch.tensor([0.5, -torch.inf, 0.0]).half(),
    ],
)
def test_scores_of_another_form_or_below_zero_are_refused(scores):
    with pytest.raises(WireError, match="score"):
        read({"w": scores})


def test_scores_that_nobody_asked_for_are_refused():
    shapes = {name: shape for name, shape in SHAPES.items() if name != "scores"}
    with pytest.raises(WireError, match="scores"):
        read({}, shapes=shapes)


@pytest.mark.parametrize(
    "changes",
    [
        {"whole.secret": torch.zeros(2)},
        {"whole.": torch.zeros(2)},
        {"whole.x.q": torch.zeros(4, 12)},
        {"whole.head.bias": torch.zeros(3)},
        {"whole.head.weight": torch.zeros(3, 2)},
        {"whole.head.bias": torch.zeros(2).bfloat16()},
        {"whole.head.bias": torch.zeros(2).long()},
        {"whole.head.bias": torch.zeros(2).byte()},
    ],
)
def test_other_whole_tensors_are_refused(changes):
    with pytest.raises(WireError, match="tensor"):
        read(changes)


@pytest.mark.parametrize(
    "changes", [{"whole.scores": torch.zeros(3)}, {"whole.slices.y.q": torch.zeros(4, 6)}]
)
def test_what_is_known_but_no_tensor_of_the_adapter_is_refused(changes):
    # These names are among the known shapes, but no whole tensors: a server that took them for
    # such would put a tensor "scores" into the shared adapter.
    with pytest.raises(WireError, match="tensor"):
        read(changes)


def test_a_method_without_matrices_refuses_slices():
    with pytest.raises(WireError, match="not part"):
        read({}, shapes={"head.bias": (2,)})


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({"v": torch.full_like(PLAIN["v"], torch.inf)}, PLAIN),
        ({"v": torch.full_like(PLAIN["v"], torch.nan)}, PLAIN),
        ({"v": torch.full_like(PLAIN["v"].half(), -torch.inf)}, PLAIN),
        ({"s4": torch.full_like(FOUR["s4"], 3e38)}, FOUR),
        ({"whole.head.bias": torch.tensor([torch.nan, 0.0])}, PLAIN),
        ({"w": torch.tensor([torch.nan, 0.0, 0.0]).half()}, PLAIN),
        ({"w": torch.tensor([torch.inf, 0.0, 0.0]).half()}, PLAIN),
    ],
)
def test_numbers_that_are_not_finite_are_shown_to_who_refuses_them(changes, base):
    back = read(changes, base)
    assert not all(bool(torch.isfinite(each).all()) for each in back.numbers())


# ---- altered messages with a checksum that fits


def resealed(body):
    return bytes(body) + struct.pack("<I", zlib.crc32(bytes(body)))


def read_or_refused(sent):
    """Read what may be read; whatever is read has the form that its docstring says."""
    try:
        back = decode(sent, SHAPES)
    except WireError:
        return
    if not isinstance(back, RankSlices):
        return
    assert back.kept.dtype == torch.bool and back.kept.shape == (12,)
    for (name, parts), mask in zip(PARTS.items(), back.kept.split(RANK), strict=True):
        assert back.slices[name].shape == (int(mask.sum()), sum(parts))
        assert back.slices[name].dtype == torch.float32
    for name, tensor in back.tensors.items():
        assert tensor.shape == SHAPES[name] and tensor.dtype == torch.float32
    if back.scores is not None:
        assert back.scores.shape == (3,) and not bool((back.scores < 0).any())
    for each in back.numbers():
        assert torch.isfinite(each).dtype == torch.bool


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("bits", [3, 8, 16, 32])
@settings(max_examples=80, deadline=None)
@given(changes=CHANGES, early=st.booleans(), cut=st.integers(0, 40))
def test_altered_bytes_are_read_or_refused(bits, changes, early, cut):
    body = bytearray(encode(message([0, 3, 5, 11], bits))[:-4])
    for place, value in changes:
        # Half of the changes hit the header and the table, where they do most harm.
        body[place % (min(len(body), 120) if early else len(body))] = value
    read_or_refused(resealed(body))
    read_or_refused(resealed(body[: len(body) - cut]))


ARRAY = st.tuples(
    st.sampled_from(
        [torch.uint8, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32]
    ),
    st.lists(st.integers(0, 5), max_size=3) | st.sampled_from([[2], [30], [45], [6], [12], [15]]),
    st.sampled_from([0, 1, 7, 255, -1, 3e38, math.nan, math.inf]),
)
NAMES = ["k", "v", "w", "s2", "s3", "s4", "s8", "s16", "x", "whole.head.bias", "whole.head.weight"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ARRAY), st.sampled_from([{}, PLAIN, FOUR]))
def test_any_arrays_under_known_names_are_read_or_refused(arrays, base):
    made = {}
    for name, (kind, shape, fill) in arrays.items():
        whole = not kind.is_floating_point and not (math.isfinite(fill) and abs(fill) < 256)
        made[name] = torch.full(shape, 3 if whole else fill).to(kind)
    read_or_refused(container.pack(RankSlices.kind, {}, {**base, **made}))


def test_another_kind_of_message_is_not_taken_for_slices():
    read_or_refused(encode(Dense({"head.bias": torch.zeros(2)})))
    with pytest.raises(WireError):
        decode(container.pack(Dense.kind, {}, PLAIN), SHAPES)
