"""A device's part in masked sums: its secrets are in memory, for one round."""

from __future__ import annotations

from airtune.federation.contents import SumStep
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.secure.local import LocalParticipants
from airtune.federation.secure.messages import SecureSumError
from airtune.federation.secure.participants import Missing
from airtune.federation.secure.terms import Terms


class Masking:
    """Answers the steps of a sum, and masks what the device's client would send.

    A device that was started again has lost its secrets and is in no sum before the next keys.
    """

    def __init__(self, federation: Federation, terms: Terms, client: int) -> None:
        """``federation`` trains the client; what it returns goes nowhere but through here."""
        self._federation, self._terms, self._client = federation, terms, client
        self._now: tuple[int, LocalParticipants] | None = None

    def answer(self, step: SumStep, message: bytes) -> bytes:
        """Return the client's message for a step; raise SecureSumError if it has none."""
        if step.step == "keys":
            # Fresh secrets whoever asks how often: those before are of no use from here on.
            own = LocalParticipants(self._federation, self._terms, [self._client], step.round)
            self._now = step.round, own
            sent = own.keys()
        elif step.step == "shares":
            sent = self._of(step.round).shares([self._client], message)
        else:
            sent = self._of(step.round).unmask([self._client], message)
            self._now = None
        found = sent[self._client]
        if isinstance(found, Missing):
            raise SecureSumError(found.reason)
        return found

    def train(self, order: Order, boxes: bytes) -> Reply:
        """Carry an order out; return the masked reply, or raise SecureSumError."""
        (reply,) = self._of(order.round).exchange([order], {self._client: boxes})
        return reply

    def _of(self, round: int) -> LocalParticipants:
        if self._now is None or self._now[0] != round:
            raise SecureSumError("the device has no part in this round's masked sum.")
        return self._now[1]
