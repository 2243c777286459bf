"""Sparse tensors: round trips, exact sizes, and messages that must be refused."""

import pytest
import torch

from airtune.wire import SparseTensors, WireError, container, decode, encode
from airtune.wire.entries import SPARSE, entries_bits

SIZES = {"a": 24, "b": 70}
SHAPES = {SPARSE + "a": (4, 6), SPARSE + "b": (70,), "head": (2, 3)}


def message(counts, bits=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    index = {
        name: torch.randperm(SIZES[name], generator=draw)[:count].sort().values
        for name, count in counts.items()
    }
    values = {name: torch.randn(len(places), generator=draw) for name, places in index.items()}
    whole = {"head": torch.randn(2, 3, generator=draw)}
    return SparseTensors(index, values, SIZES, bits, whole)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 50), (24, 70), (23, 69)])
def test_what_was_sent_is_read_and_its_size_is_known_before(counts, bits):
    named = dict(zip(SIZES, counts, strict=True))
    sent = message(named, bits)
    read = decode(encode(sent), SHAPES)
    empty = message({"a": 0, "b": 0}, bits)
    predicted = 8 * len(encode(empty)) + entries_bits(named, SIZES, bits)
    assert 8 * len(encode(sent)) == predicted
    assert read.value_bits == bits
    for name in SIZES:
        assert torch.equal(read.index[name], sent.index[name])
        assert torch.allclose(read.values[name], sent.values[name], rtol=1e-3)
    assert torch.allclose(read.tensors["head"], sent.tensors["head"], rtol=1e-3)


def test_many_entries_are_a_bitmap_and_all_need_no_places():
    # 70 entries: a place takes 7 bits, so from 11 on a bitmap of 72 bits is shorter.
    assert entries_bits({"a": 0, "b": 10}, SIZES, 16) == 160 + 72
    assert entries_bits({"a": 0, "b": 30}, SIZES, 16) == 480 + 72
    assert entries_bits({"a": 0, "b": 70}, SIZES, 16) == 1120


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"n": torch.tensor([3], dtype=torch.int32)},
        lambda a: a | {"n": torch.tensor([-1, 4], dtype=torch.int32)},
        lambda a: a | {"n": torch.tensor([25, 4], dtype=torch.int32)},
        lambda a: a | {"v": a["v"][:-1]},
        lambda a: a | {"v": a["v"].to(torch.int32)},
        lambda a: {name: array for name, array in a.items() if name != "i1"},
        lambda a: a | {"i0": torch.zeros_like(a["i0"])},  # places that do not ascend
        lambda a: a | {"i0": a["i0"] | 255},  # a place outside of its tensor
        lambda a: a | {"whole.head": torch.zeros(3, 2)},
        lambda a: a | {"whole.other": torch.zeros(2, 3)},
        lambda a: a | {"whole.sparse.b": torch.zeros(70)},
    ],
)
def test_messages_that_do_not_add_up_are_refused(change):
    _, arrays = message({"a": 3, "b": 4}).to_arrays()
    with pytest.raises(WireError):
        decode(container.pack(5, {}, change(dict(arrays))), SHAPES)
