"""What a Flower message weighs on the air."""

from __future__ import annotations

import hashlib
from typing import Any

from flwr.app import RecordDict

_NUMBER = 8  # bytes of an integer or a float


def data_bits(content: RecordDict) -> int:
    """Return eight times the bytes of what a message says.

    Arrays count by their data, in whatever form it is: a compressed payload that Flower cannot read
    is what it weighs. Numbers are 8 bytes, truth values 1, texts their UTF-8. What Flower adds
    (names, metadata, about 0.7 kB a message) is its own affair and left out.
    """
    arrays = (array for record in content.array_records.values() for array in record.values())
    length = sum(len(array.data) for array in arrays)
    for records in (content.metric_records, content.config_records):
        length += sum(_length(value) for record in records.values() for value in record.values())
    return 8 * length


def digest(content: RecordDict) -> bytes:
    """Return a fingerprint that equal contents share: those are one broadcast."""
    told = hashlib.blake2b(digest_size=16)
    for name, record in content.array_records.items():
        for key, array in record.items():
            head = (name, key, array.dtype, tuple(array.shape), array.stype, len(array.data))
            told.update(repr(head).encode())
            told.update(array.data)
    for records in (content.metric_records, content.config_records):
        told.update(repr([(name, dict(record)) for name, record in records.items()]).encode())
    return told.digest()


def number(content: RecordDict, key: str) -> float | None:
    """Return a number that a metric or a setting of this name has; None where none does."""
    for records in (content.metric_records, content.config_records):
        for record in records.values():
            value: Any = record.get(key)
            if isinstance(value, int | float):
                return float(value)
    return None


def _length(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_length, value))
    if isinstance(value, bool):
        return 1
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else _NUMBER
