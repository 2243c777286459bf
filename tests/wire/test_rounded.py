"""Rounded changes: what is read is what was sent, to half a step, in so many bytes."""

import numpy as np
import pytest
import torch

from airtune.wire import Dense, RoundedChanges, WireError, container, decode, encode
from airtune.wire.rounded import rounded_bytes

SHAPES = {"b": (3, 5), "a": (7,), "zero": (2, 2)}


def message(bits, seed=0):
    draw = torch.Generator().manual_seed(seed)
    tensors = {n: torch.randn(s, generator=draw) * 10.0 ** len(n) for n, s in SHAPES.items()}
    return RoundedChanges(tensors | {"zero": torch.zeros(2, 2)}, bits)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_numbers_are_read_to_half_a_step_and_the_largest_exactly(bits):
    sent = message(bits)
    read = decode(encode(sent), SHAPES)
    assert read.bits == bits
    for name, tensor in sent.tensors.items():
        step = float(tensor.abs().max()) / (2 ** (bits - 1) - 1)
        gap = (read.tensors[name] - tensor).abs()
        assert float(gap.max()) <= step / 2 * (1 + 1e-5)
        largest = int(tensor.abs().argmax())
        assert float(gap.flatten()[largest]) <= 1e-5 * float(tensor.abs().max())
    assert not read.tensors["zero"].any()
    # What was read is on its grid: sent again it is the same.
    again = decode(encode(RoundedChanges(read.tensors, bits)), SHAPES)
    for name in SHAPES:
        assert torch.allclose(again.tensors[name], read.tensors[name], rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 5, 8])
def test_size_is_levels_and_steps(bits):
    empty = len(encode(RoundedChanges({}, bits)))
    sizes = [int(np.prod(shape)) for shape in SHAPES.values()]
    assert rounded_bytes(sizes, bits) == -(-26 * bits // 8) + 12
    grown = len(encode(message(bits))) - empty
    assert abs(grown - rounded_bytes(sizes, bits)) <= 16  # the container aligns its arrays


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"s": a["s"]},
        lambda a: {"v4": a["v4"]},
        lambda a: a | {"v8": a["v4"]},
        lambda a: a | {"s": a["s"][:2]},
        lambda a: a | {"s": -a["s"]},
        lambda a: a | {"s": a["s"] * float("nan")},
        lambda a: a | {"s": a["s"].half()},
        lambda a: a | {"v4": a["v4"][:-1]},
        lambda a: a | {"v4": torch.full_like(a["v4"], 255)},  # level 15 of 0 to 14
        lambda a: {"s": a["s"], "v16": a["v4"]},
    ],
)
def test_what_is_no_such_message_is_refused(change):
    meta, arrays = message(4).to_arrays()
    damaged = container.pack(RoundedChanges.kind, meta, change(dict(arrays)))
    with pytest.raises(WireError):
        decode(damaged, SHAPES)


def test_a_dense_message_of_the_same_has_eight_times_the_numbers():
    draw = torch.Generator().manual_seed(1)
    tensors = {"x": torch.randn(4096, generator=draw)}
    assert 7.5 < len(encode(Dense(tensors))) / len(encode(RoundedChanges(tensors, 4))) < 8.1
