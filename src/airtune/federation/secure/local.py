"""The clients of a masked sum that live in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airtune.federation.interface import Reply
from airtune.federation.secure.participant import Participant
from airtune.wire import Dense, FixedPoint, Masked, Shapes, decode, encode
from airtune.wire.masked import flat


class LocalParticipants:
    """All clients of one round; what one of them knows goes to others as messages only."""

    def __init__(
        self,
        about: bytes,
        threshold: int,
        weights: Mapping[int, float],
        fixed: FixedPoint,
        shapes: Shapes,
    ) -> None:
        """``weights`` are the clients' shares of all examples, ``shapes`` what each sends."""
        self.clients = {client: Participant(client, about, threshold) for client in weights}
        self._weights, self._fixed, self._shapes = weights, fixed, shapes

    def masked(self, reply: Reply) -> Reply:
        """Return a reply with its dense payload masked; a note says how many numbers were clipped.

        What has no fixed point, or lacks a tensor, is not sent.
        """
        if reply.message is None:
            return reply
        payload = decode(reply.message, self._shapes)
        if not isinstance(payload, Dense) or set(payload.tensors) != set(self._shapes):
            return replace(reply, message=None, problem="its payload lacks tensors of the sum")
        numbers = flat(payload.tensors)
        try:
            words = self._fixed.words(numbers, self._weights[reply.client])
        except ValueError as error:
            return replace(reply, message=None, problem=str(error))
        notes = {**reply.notes, "clipped": float(self._fixed.clipped(numbers))}
        message = encode(Masked(self.clients[reply.client].mask(words)))
        return replace(reply, message=message, notes=notes)
