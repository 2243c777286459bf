"""The clients of a masked sum that are devices: each step is a letter, boxes go with the order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from airtune.federation.contents import SumStep
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.post import Answer, Silence
from airtune.federation.records import MaskingStep
from airtune.federation.remote import Remote, fate
from airtune.federation.secure.participants import Join, Missing, Participants
from airtune.federation.secure.terms import Terms


class DeviceParticipants:
    """Devices of one round; a step that a device does not answer is not asked of it again.

    Secrets and masks are made on the devices, and stay there: what is here are their messages.
    """

    def __init__(self, remote: Remote, clients: Sequence[int], round: int) -> None:
        self._remote, self._clients, self._round = remote, clients, round
        self.took_s = 0.0

    def keys(self) -> dict[int, bytes | Missing]:
        """Return KEYS of all clients; devices that were started again are set up for it."""
        return self._asked("keys", self._clients, b"", set_up=True)

    def shares(self, clients: Iterable[int], roster: bytes) -> dict[int, bytes | Missing]:
        """Return SHARES of these clients."""
        return self._asked("shares", clients, roster)

    def exchange(self, orders: Sequence[Order], boxes: Mapping[int, bytes]) -> list[Reply]:
        """Have the devices train; what they return is masked."""
        return self._remote.exchange(orders, boxes)

    def unmask(self, clients: Iterable[int], arrived: bytes) -> dict[int, bytes | Missing]:
        """Return UNMASK of these clients."""
        return self._asked("unmasking", clients, arrived)

    def _asked(
        self, name: MaskingStep, clients: Iterable[int], message: bytes, set_up: bool = False
    ) -> dict[int, bytes | Missing]:
        began = time.monotonic()
        step = SumStep(round=self._round, step=name)
        found = self._remote.sum_step(step, clients, message, set_up)
        self.took_s = time.monotonic() - began
        return _sent(found)


def these_devices(remote: Remote) -> Join:
    """Return what makes the participants of a masked sum of these devices."""

    def join(
        federation: Federation, terms: Terms, clients: Sequence[int], round: int
    ) -> Participants:
        del federation, terms  # both are on the devices
        return DeviceParticipants(remote, clients, round)

    return join


def _sent(found: Mapping[int, Answer | Silence]) -> dict[int, bytes | Missing]:
    return {
        client: each.body if isinstance(each, Answer) else Missing(each.reason, fate(each))
        for client, each in found.items()
    }
