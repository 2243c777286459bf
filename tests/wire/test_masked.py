"""Fixed point: sums are exact, do not wrap, and means are as near as is said; words cross whole."""

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

from airtune.wire import Dense, FixedPoint, Masked, WireError, container, decode, encode
from airtune.wire.masked import flat, shaped

SHAPES = {"b": (3, 5), "a": (7,), "empty": (0, 2)}


@pytest.mark.parametrize(
    ("clip", "count", "places"),
    # By hand: 2^k c + n/2 <= 2147483647. 2^27 * 16 is one too many; 2^30 * 1 leaves room.
    [(16.0, 10, 26), (1.0, 2, 30), (1.0, 2**29, 30), (1.5, 4, 30), (2.0**-8, 10, 38)],
)
def test_places_are_the_most_for_which_no_sum_wraps(clip, count, places):
    fixed = FixedPoint(clip, count)
    assert fixed.places == places
    assert Fraction(2) ** places * Fraction(clip) + Fraction(count, 2) <= 2**31 - 1
    assert Fraction(2) ** (places + 1) * Fraction(clip) + Fraction(count, 2) > 2**31 - 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sum_does_not_wrap(sign):
    for count in (1, 3, 1000):
        fixed = FixedPoint(1.5, count)
        words = [fixed.words(np.full(2, sign * 99.0), 1 / count) for _ in range(count)]
        mean = fixed.mean(np.sum(words, axis=0, dtype=np.uint32), 1.0)
        assert mean == pytest.approx(np.full(2, sign * 1.5), abs=fixed.error(count, 1.0))


def test_a_mean_is_the_exact_one_to_the_error_stated():
    rng = np.random.default_rng(3)
    for count in (2, 7, 40):
        fixed, weights = FixedPoint(16.0, count), rng.dirichlet(np.ones(count)) * 0.8
        values = rng.normal(size=(count, 200)).astype(np.float32) * 2
        sent = zip(values, weights, strict=True)
        words = [fixed.words(v, w) for v, w in sent]
        mean = fixed.mean(np.sum(words, axis=0, dtype=np.uint32), weights.sum())
        exact = (weights[:, None] * values.astype(float)).sum(0) / weights.sum()
        assert np.abs(mean - exact).max() <= fixed.error(count, weights.sum())
        # A bound that the worst of 200 numbers does not come near would say nothing.
        assert np.abs(mean - exact).max() > fixed.error(count, weights.sum()) / 40
        assert fixed.clipped(values) == 0


def test_steps_by_hand():
    fixed = FixedPoint(2.0**29, 2)  # one place
    assert fixed.places == 1
    words = fixed.words(np.array([1.0, -1.0, 0.75, 2.0**40]), 0.5)
    assert words.tolist() == [1, 2**32 - 1, 1, 2**29]
    assert fixed.clipped(np.array([1.0, -(2.0**40), 2.0**29])) == 1
    assert fixed.mean(np.array([3, 2**32 - 3], dtype=np.uint32), 0.5).tolist() == [3.0, -3.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_has_no_fixed_point_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        FixedPoint(1.0, 2).words(np.array([0.0, value]), 1.0)
    with pytest.raises(ValueError, match="no 32-bit sum"):
        FixedPoint(2.0**30, 2)


def test_words_cross_as_they_are_in_four_bytes_each():
    words = np.random.default_rng(0).integers(0, 2**32, 22, dtype=np.uint32)
    message = encode(Masked(words))
    # Header 20, one entry (prefix, length, "m", type, dims, size) 9, checksum 4.
    assert len(message) == 20 + 9 + 4 * 22 + 4
    assert struct.pack("<22I", *words.tolist()) in message
    read = decode(message, SHAPES)
    assert isinstance(read, Masked)
    assert np.array_equal(read.words, words)
    dense = Dense({name: torch.zeros(shape) for name, shape in SHAPES.items()})
    assert len(message) < len(encode(dense))


def test_tensors_are_put_end_to_end_and_taken_apart():
    tensors = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    numbers = flat(tensors)
    assert np.array_equal(numbers[:7], tensors["a"].numpy())
    back = shaped(numbers.astype(np.float64), SHAPES)
    assert all(torch.equal(back[name], tensors[name]) for name in SHAPES)


@pytest.mark.parametrize(
    ("arrays", "meta", "match"),
    [
        ({"m": torch.zeros(21, dtype=torch.int32)}, {}, "not one of 22 words"),
        ({"m": torch.zeros(2, 11, dtype=torch.int32)}, {}, "not one of 22 words"),
        ({"m": torch.zeros(22)}, {}, "one list of 32-bit words"),
        ({"n": torch.zeros(22, dtype=torch.int32)}, {}, "one list of 32-bit words"),
        ({"m": torch.zeros(22, dtype=torch.int32)}, {"x": 1}, "one list of 32-bit words"),
    ],
)
def test_what_is_no_masked_payload_is_refused(arrays, meta, match):
    with pytest.raises(WireError, match=match):
        decode(container.pack(Masked.kind, meta, arrays), SHAPES)
