"""The clients of a masked sum that live in this process; a device has one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.secure.messages import SecureSumError
from airtune.federation.secure.participant import Participant
from airtune.federation.secure.participants import Missing
from airtune.federation.secure.terms import Terms
from airtune.wire import Dense, Masked, decode, encode
from airtune.wire.masked import flat


class LocalParticipants:
    """Clients of one round; what one of them knows goes to others as messages only.

    Secrets are in memory, for as long as this object is.
    """

    took_s = 0.0

    def __init__(
        self, federation: Federation, terms: Terms, clients: Sequence[int], round: int
    ) -> None:
        """``federation`` trains them; none of its uploads leaves this object unmasked."""
        self._federation, self._terms = federation, terms
        about = terms.context(round)
        self._each = {client: Participant(client, about, terms.threshold) for client in clients}

    def keys(self) -> dict[int, bytes | Missing]:
        """Return KEYS of all clients."""
        return self._step(self._each, Participant.keys)

    def shares(self, clients: Iterable[int], roster: bytes) -> dict[int, bytes | Missing]:
        """Return SHARES of these clients."""
        return self._step(clients, lambda each: each.shares(roster))

    def exchange(self, orders: Sequence[Order], boxes: Mapping[int, bytes]) -> list[Reply]:
        """Train those who can use their boxes; return the replies, masked."""
        replies: dict[int, Reply] = {}
        ready = []
        for order in orders:
            try:
                self._each[order.client].keep(boxes[order.client])
                ready.append(order)
            except SecureSumError as error:
                replies[order.client] = Reply(order.client, None, None, 0, str(error))
        for reply in self._federation.exchange(ready):
            replies[reply.client] = self._masked(reply)
        return [replies[order.client] for order in orders]

    def unmask(self, clients: Iterable[int], arrived: bytes) -> dict[int, bytes | Missing]:
        """Return UNMASK of these clients."""
        return self._step(clients, lambda each: each.unmask(arrived))

    def _step(
        self, clients: Iterable[int], send: Callable[[Participant], bytes]
    ) -> dict[int, bytes | Missing]:
        sent: dict[int, bytes | Missing] = {}
        for client in clients:
            try:
                sent[client] = send(self._each[client])
            except SecureSumError as error:
                sent[client] = Missing(str(error))
        return sent

    def _masked(self, reply: Reply) -> Reply:
        """Return a reply with its dense payload masked; a note says how many numbers were clipped.

        What has no fixed point, or lacks a tensor, is not sent.
        """
        if reply.message is None:
            return reply
        fixed, shapes = self._terms.fixed, self._terms.shapes
        payload = decode(reply.message, shapes)
        if not isinstance(payload, Dense) or set(payload.tensors) != set(shapes):
            return replace(reply, message=None, problem="its payload lacks tensors of the sum")
        numbers = flat(payload.tensors)
        try:
            words = fixed.words(numbers, float(self._terms.weights[reply.client]))
        except ValueError as error:
            return replace(reply, message=None, problem=str(error))
        notes = {**reply.notes, "clipped": float(fixed.clipped(numbers))}
        message = encode(Masked(self._each[reply.client].mask(words)))
        return replace(reply, message=message, notes=notes)
