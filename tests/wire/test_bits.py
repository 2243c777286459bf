"""Packed integers against bytes written by hand, and scales against their half step."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.wire import WireError
from airtune.wire.bits import Scale, pack, packed_bytes, unpack, width_of


def by_hand(values, bits):
    """One long integer, the first value in its lowest bits."""
    whole = sum(int(value) << place * bits for place, value in enumerate(values))
    return whole.to_bytes(math.ceil(len(values) * bits / 8), "little")


def test_bytes_written_by_hand():
    # 5 = 101, 3 = 011, 6 = 110, 1 = 001: from the lowest bit on 101 110 01|1 100.
    assert bytes(pack(np.array([5, 3, 6, 1]), 3).tolist()) == bytes([0b10011101, 0b00000011])
    assert bytes(pack(np.array([1, 0, 1]), 1).tolist()) == b"\x05"
    assert bytes(pack(np.array([0x0102, 0x0304]), 16).tolist()) == b"\x02\x01\x04\x03"


@pytest.mark.parametrize("bits", range(1, 18))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_integers_of_any_width_come_back(bits, data):
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack(np.array(values, dtype=np.int64), bits)
    assert packed.dtype == torch.uint8
    assert bytes(packed.tolist()) == by_hand(values, bits)
    assert packed_bytes(len(values), bits) == packed.numel()
    assert unpack(packed, len(values), bits).tolist() == values


def test_tables_are_packed_row_after_row():
    table = np.arange(12).reshape(3, 4)
    assert torch.equal(pack(table, 5), pack(table.reshape(-1), 5))


def test_numbers_that_can_only_be_zero_take_no_bytes():
    assert pack(np.zeros(9, dtype=np.int64), 0).numel() == 0
    assert unpack(torch.empty(0, dtype=torch.uint8), 9, 0).tolist() == [0] * 9


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 77, 127, 128, 129, 50257, 65536, 65537])
def test_width_is_the_logarithm_rounded_up(count):
    assert width_of(count) == math.ceil(math.log2(count))


@pytest.mark.parametrize("count", [0, 3, 7, 9, 16])
def test_another_number_of_bytes_is_refused(count):
    packed = pack(np.arange(8), 3)  # 24 bits, three bytes; 6 and 7 numbers take three as well
    with pytest.raises(WireError):
        unpack(packed, count, 3) if count != 7 else unpack(packed[:2], count, 3)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float32])
def test_bytes_of_another_type_are_refused(dtype):
    with pytest.raises(WireError):
        unpack(pack(np.arange(8), 3).to(dtype), 8, 3)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_rounding_moves_a_number_by_half_a_step_at_most(numbers, bits):
    values = torch.tensor(numbers)
    scale = Scale.of(values, bits)
    levels = scale.levels(values)
    back = scale.values(levels)
    assert back.dtype == torch.float32
    assert levels.min() >= 0
    assert levels.max() <= 2**bits - 1
    step = (max(numbers) - min(numbers)) / (2**bits - 1)
    assert scale.step == pytest.approx(step, rel=1e-6, abs=1e-40)
    float32 = 2**-23 * np.abs(numbers).max()  # what float32 itself cannot tell apart
    assert np.abs(back.double().numpy() - numbers).max() <= step / 2 + float32 + 1e-40


def test_levels_are_the_nearest_of_an_even_grid():
    values = torch.tensor([-1.0, 0.0, 0.6, 2.0, 1.4])
    scale = Scale.of(values, 2)
    assert (scale.low, scale.step) == (-1.0, 1.0)
    assert scale.levels(values).tolist() == [0, 1, 2, 3, 2]
    assert scale.values(np.array([0, 1, 2, 3])).tolist() == [-1.0, 0.0, 1.0, 2.0]


def test_numbers_beyond_the_scale_take_its_ends():
    assert Scale(0.0, 1.0, 3).levels(torch.tensor([-5.0, 50.0])).tolist() == [0, 7]


@pytest.mark.parametrize("value", [0.0, -3.25, 1e-30, 0.1])
def test_constant_numbers_come_back_exactly(value):
    values = torch.full((5,), value)
    scale = Scale.of(values, 4)
    assert scale.step == 0.0
    assert torch.equal(scale.values(scale.levels(values)), values)


def test_no_numbers_have_a_scale_too():
    scale = Scale.of(torch.zeros(0), 4)
    assert (scale.low, scale.step) == (0.0, 0.0)
    assert scale.values(scale.levels(torch.zeros(0))).shape == (0,)


def test_a_scale_is_the_same_after_it_travelled_as_float32():
    scale = Scale.of(torch.tensor([0.1, 0.7, 1.3]), 5)
    assert torch.tensor([scale.low, scale.step]).double().tolist() == [scale.low, scale.step]
