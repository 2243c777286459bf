"""What may cross the air: payloads, and the way from a payload to bytes and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol, Self, TypeVar

from torch import Tensor

from airtune.wire import container
from airtune.wire.container import Scalar, WireError

Shapes = Mapping[str, tuple[int, ...]]
P = TypeVar("P", bound="Payload")


class Payload(Protocol):
    """One kind of content; each kind has a number on the wire that never changes its meaning."""

    kind: ClassVar[int]

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return the scalars and arrays that represent this payload."""
        ...

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Rebuild the payload; raise WireError where it does not fit the known ``shapes``."""
        ...

    def numbers(self) -> Iterable[Tensor]:
        """Return the numbers that have to be finite; a message with others is refused."""
        ...


_kinds: dict[int, type[Payload]] = {}


def register(cls: type[P]) -> type[P]:
    """Class decorator: make a payload class known to :func:`decode`."""
    taken = _kinds.setdefault(cls.kind, cls)
    if taken is not cls:
        raise ValueError(f"payload kind {cls.kind} is taken by {taken.__name__}.")
    return cls


def encode(payload: Payload) -> bytes:
    """Return the bytes that cross; eight times their number is what is charged."""
    meta, arrays = payload.to_arrays()
    return container.pack(payload.kind, meta, arrays)


def decode(message: bytes, shapes: Shapes) -> Payload:
    """Return the payload in ``message``.

    ``shapes`` are the tensors that both sides know, by name: what a payload says of a tensor must
    fit them. Raises WireError.
    """
    kind, meta, arrays = container.unpack(message)
    if kind not in _kinds:
        raise WireError(f"payload kind {kind} is unknown; known are {sorted(_kinds)}.")
    return _kinds[kind].from_arrays(meta, arrays, shapes)
