"""The container against hand-written bytes, and every way in which bytes can be wrong."""

import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.wire import Dense, WireError, container, decode, encode

SHAPES = {"a.lora_A": (2, 3), "a.lora_B": (3, 2)}


def tensors():
    return {name: torch.randn(shape) for name, shape in SHAPES.items()}


def test_layout_equals_bytes_written_by_hand():
    message = container.pack(1, {}, {"x": torch.tensor([1.0, -2.0])})
    by_hand = b"AIRT" + struct.pack("<BBHIQ", 1, 1, 1, 0, 8)
    by_hand += struct.pack("<BB", 0, 1) + b"x" + struct.pack("<BBI", 0, 1, 2)
    by_hand += struct.pack("<2f", 1.0, -2.0)
    assert message == by_hand + struct.pack("<I", zlib.crc32(by_hand))


def test_names_share_their_prefix():
    long = "model.encoder.layer.0.attention.self.query."
    one = len(container.pack(1, {}, {long + "lora_A": torch.zeros(0)}))
    two = len(
        container.pack(1, {}, {long + "lora_A": torch.zeros(0), long + "lora_B": torch.zeros(0)})
    )
    assert two - one == len(b"\x00\x00") + len("B") + len(b"\x00\x00") + 4


@pytest.mark.parametrize("value_type", ["float32", "float16", "bfloat16"])
def test_round_trip_is_the_rounding_of_the_value_type(value_type):
    sent = tensors()
    back = decode(encode(Dense(sent, value_type)), SHAPES)
    assert back.value_type == value_type
    for name, tensor in sent.items():
        assert back.tensors[name].dtype == torch.float32
        assert torch.equal(back.tensors[name], tensor.to(getattr(torch, value_type)).float())


def test_sixteen_bits_halve_the_values():
    sent = tensors()
    sizes = [len(encode(Dense(sent, value_type))) for value_type in ("float32", "float16")]
    assert sizes[0] - sizes[1] == 2 * sum(t.numel() for t in sent.values())


@pytest.mark.parametrize("odd", range(8))
def test_arrays_of_any_type_follow_one_another_at_any_offset(odd):
    arrays = {"odd": torch.arange(odd, dtype=torch.uint8)}
    for index, dtype in enumerate((torch.int64, torch.bfloat16, torch.float32, torch.int8)):
        arrays[str(index)] = torch.arange(-3, 4).to(dtype)
    _, _, back = container.unpack(container.pack(7, {}, arrays))
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert torch.equal(back[name], array)
        back[name] += 1  # its own memory, and writable
    assert torch.equal(back["odd"], arrays["odd"] + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 4), max_size=3)),
    st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text(max_size=5)),
)
def test_any_names_shapes_and_scalars_survive(shapes, meta):
    arrays = {name: torch.randn(shape) for name, shape in shapes.items()}
    kind, meta_back, back = container.unpack(container.pack(7, meta, arrays))
    assert (kind, meta_back) == (7, meta)
    assert list(back) == list(arrays)
    assert all(torch.equal(back[name], arrays[name]) for name in arrays)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255))
def test_any_altered_byte_is_refused(position, change):
    message = bytearray(encode(Dense(tensors())))
    message[position % len(message)] ^= change
    with pytest.raises(WireError):
        decode(bytes(message), SHAPES)


@pytest.mark.parametrize("keep", [0, 3, 23, 30, -1])
def test_truncated_is_refused(keep):
    with pytest.raises(WireError):
        decode(encode(Dense(tensors()))[:keep], SHAPES)


def sealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def test_a_huge_declared_array_is_refused_before_it_is_allocated():
    table = struct.pack("<BB", 0, 1) + b"x" + struct.pack("<BB3I", 0, 3, *[2**32 - 1] * 3)
    with pytest.raises(WireError, match="declare"):
        container.unpack(sealed(b"AIRT" + struct.pack("<BBHIQ", 1, 1, 1, 0, 0) + table))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"AIRT" + struct.pack("<BBHIQ", 9, 1, 0, 0, 0), "version 9"),
        (b"NOPE" + struct.pack("<BBHIQ", 1, 1, 0, 0, 0), "do not start"),
        (b"AIRT" + struct.pack("<BBHIQ", 1, 99, 0, 0, 0), "kind 99"),
        (b"AIRT" + struct.pack("<BBHIQ", 1, 1, 5, 0, 0), "table"),
        (b"AIRT" + struct.pack("<BBHIQ", 1, 1, 0, 2, 0) + b"[]", "not an object"),
    ],
)
def test_wrong_headers_are_refused(body, message):
    with pytest.raises(WireError, match=message):
        decode(sealed(body), SHAPES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a.lora_A": torch.zeros(3, 2)}, "expected"),
        ({"secret": torch.zeros(2)}, "not part of"),
        ({"a.lora_A": torch.zeros(2, 3, dtype=torch.int32)}, "floating-point"),
    ],
)
def test_tensors_that_do_not_fit_the_adapter_are_refused(arrays, message):
    with pytest.raises(WireError, match=message):
        decode(container.pack(1, {}, arrays), SHAPES)


@pytest.mark.parametrize(
    "meta", [b"[" * 60000, b'{"a":' + b"1" * 5000 + b"}", b'{"a":[1]}', b"\xff{}"]
)
def test_scalars_made_to_break_the_parser_are_refused(meta):
    header = b"AIRT" + struct.pack("<BBHIQ", 1, 1, 0, len(meta), 0)
    with pytest.raises(WireError):
        container.unpack(sealed(header + meta))


def test_too_many_scalars_and_impossible_empty_shapes_are_refused():
    meta = b'{"a":"' + b"x" * 70000 + b'"}'
    with pytest.raises(WireError, match="too many"):
        container.unpack(sealed(b"AIRT" + struct.pack("<BBHIQ", 1, 1, 0, len(meta), 0) + meta))
    table = struct.pack("<BB", 0, 1) + b"x" + struct.pack("<BB4I", 0, 4, 0, *[2**32 - 1] * 3)
    with pytest.raises(WireError, match="impossible shape"):
        container.unpack(sealed(b"AIRT" + struct.pack("<BBHIQ", 1, 1, 1, 0, 0) + table))
