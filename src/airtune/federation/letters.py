"""What crosses between machines: one payload's own bytes behind a small header.

Layout, little endian, version 1::

    magic "AIRL" | version u8 | kind u8 | run 16 bytes | sequence u64
    | fields bytes u32 | body bytes u64
    fields    JSON object, checked against the class of the kind
    body      a payload as the ledger charges it, or nothing
    checksum  CRC-32 of all that precedes it, u32

The checksum finds damage, not malice: who may speak at all is settled by the carrier (TLS, keys
of nodes). A run has 16 random bytes for a name, and letters of a run are numbered by its server:
so a letter of another run, an answer to another question and a repeated question are refused.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from airtune.federation.contents import KINDS, Content, Problem

MAGIC = b"AIRL"
VERSION = 1
RUN_BYTES = 16
NO_RUN = bytes(RUN_BYTES)
_HEADER = struct.Struct(f"<4sBB{RUN_BYTES}sQIQ")
_CHECKSUM = struct.Struct("<I")
_CODES = {content: code for code, content in KINDS.items()}
MOST_FIELDS = 1 << 24  # an experiment, or how many examples each of a million clients has
MOST_BYTES = 1 << 31  # of a whole letter, by default

C = TypeVar("C", bound=Content)


class LetterError(ValueError):
    """The bytes are no letter that this side may act upon; the message says why.

    ``content`` is what the other side said, where it was that which refused.
    """

    def __init__(self, sentence: str, content: Content | None = None) -> None:
        super().__init__(sentence)
        self.content = content


@dataclass(frozen=True)
class Letter:
    """One message: of which run, its number there, what it says, and a payload's bytes."""

    run: bytes
    sequence: int
    content: Content
    body: bytes = b""


def write(letter: Letter) -> bytes:
    """Return a letter's bytes."""
    # Without what is at its default: an answer has about a hundred bytes around its payload.
    fields = json.dumps(
        letter.content.model_dump(exclude_defaults=True), separators=(",", ":")
    ).encode()
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        _CODES[type(letter.content)],
        letter.run,
        letter.sequence,
        len(fields),
        len(letter.body),
    )
    checksum = zlib.crc32(letter.body, zlib.crc32(fields, zlib.crc32(header)))
    return b"".join([header, fields, letter.body, _CHECKSUM.pack(checksum)])


def read(data: bytes, most_bytes: int = MOST_BYTES) -> Letter:
    """Return the letter that the bytes are.

    Sizes are compared with the bytes at hand before anything is copied.

    Raises:
        LetterError: too large, truncated, altered, of another version, or not of its kind's form.
    """
    if len(data) > most_bytes:
        raise LetterError(f"{len(data)} bytes are too many for a letter; at most {most_bytes}.")
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise LetterError(f"{len(data)} bytes are too few for a letter.")
    magic, version, kind, run, sequence, fields_size, body_size = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise LetterError("the bytes do not start as a letter of airtune.")
    if version != VERSION:
        raise LetterError(f"letter version {version} cannot be read; this side reads {VERSION}.")
    declared = _HEADER.size + fields_size + body_size + _CHECKSUM.size
    if declared != len(data):
        raise LetterError(f"the letter declares {declared} bytes and {len(data)} are there.")
    end = len(data) - _CHECKSUM.size
    if zlib.crc32(memoryview(data)[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        raise LetterError("the checksum does not match: the letter was altered.")
    if kind not in KINDS:
        raise LetterError(f"letters of kind {kind} are not known.")
    if fields_size > MOST_FIELDS:
        raise LetterError(f"{fields_size} bytes of fields are too many; at most {MOST_FIELDS}.")
    body = _HEADER.size + fields_size
    content = _content(KINDS[kind], data[_HEADER.size : body])
    return Letter(run, sequence, content, data[body:end])


def _content(kind: type[Content], fields: bytes) -> Content:
    try:
        values = json.loads(fields)
    except (ValueError, RecursionError) as error:
        raise LetterError("the letter's fields are not JSON.") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "fields"
        raise LetterError(
            f"a letter of kind {kind.__name__} has a wrong {where}: {first['msg']}."
        ) from error


def answer(data: bytes, to: Letter, kind: type[C], most_bytes: int = MOST_BYTES) -> tuple[C, bytes]:
    """Return content and body of the answer to a letter.

    Raises:
        LetterError: as :func:`read`; or of another run, to another letter, of another kind; or the
            other side says that it could not do what it was asked to, in its own words.
    """
    letter = read(data, most_bytes)
    if isinstance(letter.content, Problem) and letter.run == NO_RUN:
        raise LetterError(letter.content.sentence, letter.content)  # it could not read which
    if letter.run != to.run:
        raise LetterError("the answer belongs to another run.")
    if letter.sequence != to.sequence:
        raise LetterError(
            f"the answer is to letter {letter.sequence} and letter {to.sequence} was sent."
        )
    if isinstance(letter.content, Problem):
        raise LetterError(letter.content.sentence, letter.content)
    if not isinstance(letter.content, kind):
        raise LetterError(
            f"a {type(letter.content).__name__} came where a {kind.__name__} was due."
        )
    return letter.content, letter.body


def plain_texts(columns: Mapping[str, list[Any]]) -> bytes:
    """Return columns of texts as the body of a letter."""
    return json.dumps(dict(columns), separators=(",", ":"), ensure_ascii=False).encode()


def read_texts(body: bytes) -> dict[str, list[str | None]]:
    """Return the columns of texts in a letter's body; raise LetterError if they are none."""
    try:
        columns = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LetterError("the letter's texts are not JSON.") from error
    fine = isinstance(columns, dict) and all(
        isinstance(column, list) and all(text is None or isinstance(text, str) for text in column)
        for column in columns.values()
    )
    if not fine or len({len(column) for column in columns.values()}) > 1:
        raise LetterError("the letter's texts are not columns of equal length.")
    return dict(columns)
