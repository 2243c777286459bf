"""The byte container under every payload: named arrays and a few scalars.

Layout, little endian, version 1::

    magic "AIRT" | version u8 | kind u8 | arrays u16 | meta bytes u32 | data bytes u64
    meta      JSON object of scalars (absent when empty)
    table     per array: shared name prefix u8 | suffix length u8 | suffix | dtype u8 | dims u8
              | each dimension u32
    data      the arrays' values, one after another
    checksum  CRC-32 of all that precedes it, u32

A name repeats only what differs from the name before it, because adapter names are long and alike.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

MAGIC = b"AIRT"
VERSION = 1
_HEADER = struct.Struct("<4sBBHIQ")
_CHECKSUM = struct.Struct("<I")
_DTYPES = {
    0: torch.float32,
    1: torch.float16,
    2: torch.bfloat16,
    3: torch.uint8,
    4: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MAX_DIMS = 8
_MAX_META = 1 << 16

Scalar = int | float | str | bool


class WireError(ValueError):
    """The bytes are not a payload that this version can read; the message says why."""


def pack(kind: int, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor]) -> bytes:
    """Return the container bytes of ``arrays`` (any device, any layout) and ``meta``."""
    meta_bytes = json.dumps(meta, sort_keys=True, separators=(",", ":")).encode() if meta else b""
    table, data = [], []
    previous = b""
    for name, array in arrays.items():
        encoded = name.encode()
        shared = min(_common_prefix(previous, encoded), 255)
        suffix = encoded[shared:]
        if len(suffix) > 255:
            raise WireError(f"array name '{name}' differs from its neighbour by over 255 bytes.")
        table.append(struct.pack("<BB", shared, len(suffix)) + suffix)
        code, dims = _CODES[array.dtype], array.dim()
        table.append(struct.pack(f"<BB{dims}I", code, dims, *array.shape))
        data.append(_to_bytes(array))
        previous = encoded
    body = b"".join(data)
    header = _HEADER.pack(MAGIC, VERSION, kind, len(arrays), len(meta_bytes), len(body))
    message = b"".join([header, meta_bytes, *table, body])
    return message + _CHECKSUM.pack(zlib.crc32(message))


def packed_bytes(arrays: Mapping[str, tuple[torch.dtype, int]]) -> int:
    """Return the size of a container without scalars, of flat arrays with short, unlike names."""
    table = sum(len(name.encode()) + 8 for name in arrays)
    data = sum(dtype.itemsize * count for dtype, count in arrays.values())
    return _HEADER.size + table + data + _CHECKSUM.size


def unpack(message: bytes) -> tuple[int, dict[str, Scalar], dict[str, Tensor]]:
    """Return ``(kind, meta, arrays)`` of a container.

    Every declared size is compared with the bytes at hand before an array is allocated.

    Raises:
        WireError: truncated, altered, of another version, or declaring sizes that do not add up.
    """
    if len(message) < _HEADER.size + _CHECKSUM.size:
        raise WireError(f"{len(message)} bytes are too few for a payload.")
    magic, version, kind, count, meta_size, data_size = _HEADER.unpack_from(message)
    if magic != MAGIC:
        raise WireError("the bytes do not start as an airtune payload.")
    if version != VERSION:
        raise WireError(f"payload version {version} cannot be read; this side reads {VERSION}.")
    end = len(message) - _CHECKSUM.size
    if zlib.crc32(memoryview(message)[:end]) != _CHECKSUM.unpack_from(message, end)[0]:
        raise WireError("the checksum does not match: the payload was truncated or altered.")
    try:
        meta, entries, offset = _read_table(message[:end], count, meta_size)
    except (struct.error, IndexError, ValueError, RecursionError) as error:
        # WireError is a ValueError too: one that was raised inside says it better.
        if isinstance(error, WireError):
            raise
        raise WireError(f"the payload's table cannot be read ({error}).") from error
    declared = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in entries)
    if declared != data_size or offset + data_size != end:
        raise WireError(
            f"the arrays declare {declared} bytes, the header {data_size}, "
            f"and {end - offset} are there."
        )
    # One copy of all data; an array is a view of it where its type's alignment allows that.
    data, offset = np.frombuffer(message, np.uint8, count=data_size, offset=offset).copy(), 0
    arrays = {}
    for name, dtype, shape in entries:
        size = math.prod(shape) * dtype.itemsize
        arrays[name] = _from_bytes(data[offset : offset + size], offset, dtype).reshape(shape)
        offset += size
    if len(arrays) != count:
        raise WireError("an array name occurs twice.")
    return kind, meta, arrays


def _read_table(
    message: bytes, count: int, meta_size: int
) -> tuple[dict[str, Scalar], list[tuple[str, torch.dtype, tuple[int, ...]]], int]:
    if meta_size > _MAX_META:
        raise WireError(f"{meta_size} bytes of scalars are too many; at most {_MAX_META}.")
    offset = _HEADER.size + meta_size
    meta = json.loads(message[_HEADER.size : offset]) if meta_size else {}
    if not isinstance(meta, dict):
        raise WireError("the payload's scalars are not an object.")
    if not all(isinstance(value, int | float | str) for value in meta.values()):
        raise WireError("the payload's scalars hold something that is no scalar.")
    entries = []
    previous = b""
    for _ in range(count):
        shared, length = struct.unpack_from("<BB", message, offset)
        name = previous[:shared] + message[offset + 2 : offset + 2 + length]
        offset += 2 + length
        code, dims = struct.unpack_from("<BB", message, offset)
        if code not in _DTYPES or dims > _MAX_DIMS:
            raise WireError(f"array '{name.decode()}' has an unknown type or too many dimensions.")
        shape = struct.unpack_from(f"<{dims}I", message, offset + 2)
        # An empty array may not claim dimensions whose strides overflow.
        if math.prod(max(size, 1) for size in shape) >= 2**62:
            raise WireError(f"array '{name.decode()}' declares an impossible shape.")
        offset += 2 + 4 * dims
        entries.append((name.decode(), _DTYPES[code], shape))
        previous = name
    return meta, entries, offset


def _common_prefix(first: bytes, second: bytes) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _to_bytes(array: Tensor) -> bytes:
    flat = array.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _from_bytes(data: np.ndarray, offset: int, dtype: torch.dtype) -> Tensor:
    if data.size == 0:  # torch cannot view zero bytes as another type
        return torch.empty(0, dtype=dtype)
    return torch.from_numpy(data if offset % dtype.itemsize == 0 else data.copy()).view(dtype)
