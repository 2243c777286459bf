"""One push of messages and their answers on the air; nothing in here knows Flower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from airtune.errors import UserError
from airtune.federation.records import BroadcastRow, LedgerRow, RoundRow, Status, UploadRow
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.grant import Grant
from airtune.scheduling.allocate import allocate
from airtune.scheduling.deadline import out_of_reach


@dataclass(frozen=True)
class Cast:
    """One message down: its bits, and the clients that it is for."""

    bits: int
    clients: list[int]


@dataclass(frozen=True)
class Answer:
    """What a client has to send: ``bits``, None for nothing, with the ``problem`` then."""

    bits: int | None
    compute_seconds: float
    problem: str | None = None


@dataclass(frozen=True)
class Fate:
    """What became of one client's part, and when the server knows: seconds since the start."""

    status: Status
    reason: str
    at: float


_REASONS = {
    "outage": "the link could not carry the granted rate",
    "lost": "a packet ran out of tries",
}


class Exchange:
    """Messages down to some clients at once, and what these send back.

    t_end = t_start + sum_m t_down,m + max_k min(t_cmp,k + t_up,k, deadline)

    Different messages go out one after the other, and everybody begins when the last is out. As in
    a round of ours, clients whose uplink is known to be in outage are not asked, the server waits
    for uploads that fail, and the deadline counts from the end of the downlink. Sizes are known
    when the uplink is divided: who could not send all by the deadline gets no share of it and is
    late, as one slow client would make all finish with it. DERIVED: the synchronous round's delay
    with a broadcast for each distinct message. ``number`` is the cell's round, so fates are a
    function of (cell, seed, number, bits, computing) alone.
    """

    def __init__(
        self, cell: Cell, air: Air, number: int, now: float, casts: Sequence[Cast], kind: str = ""
    ) -> None:
        """Send the messages at ``now``; ``kind`` is written beside each upload.

        Raises UserError where clients are asked that have no resource block.
        """
        self.number, self._cell, self._air, self._kind = number, cell, air, kind
        self._links = cell.links(number)
        clients = np.array([client for cast in casts for client in cast.clients], dtype=np.int64)
        config, none = cell.config, np.zeros(clients.size)
        if config.allocation == "resource-blocks" and config.blocks < clients.size:
            raise UserError(
                f"cell.bandwidth_hz: {clients.size} nodes are asked at once and the uplink has "
                f"{config.blocks} resource blocks; ask fewer, or widen it."
            )
        skipped = out_of_reach(self._links, clients, none, none, config)
        self._rows = [UploadRow(number, c, "skipped", why) for c, why in sorted(skipped.items())]
        self._asked = clients.size
        self.heard: list[int] = []
        self._cast: BroadcastRow | None = None
        for cast in casts:
            self._send(cast, [client for client in cast.clients if client not in skipped])
        self._begun = now + (self._cast.seconds if self._cast else 0.0)
        # Who was not reached has nothing to send, so nobody waits for it.
        self.fates = {
            row.client: Fate(row.status, row.reason or "", self._begun) for row in self._rows
        }

    def settle(self, answers: Mapping[int, Answer]) -> None:
        """Send up what those who heard answer, and fill in their fates."""
        config = self._cell.config
        sending = [client for client in self.heard if answers[client].bits is not None]
        bits = np.array([answers[client].bits for client in sending], dtype=np.float64)
        computing = np.array([answers[client].compute_seconds for client in sending])
        plan = allocate(self._links, sending, bits, bits, computing, config)
        late = math.inf if config.deadline_s is None else self._begun + config.deadline_s
        for client in self.heard:
            row = self._sent(client, answers[client], plan.grants.get(client))
            at = self._begun + (row.compute_seconds + row.seconds)
            if client in plan.skipped:
                row.status, row.reason, at = "late", plan.skipped[client], self._begun
            elif at > late:
                at = late
                if row.status == "delivered":
                    row.status = "late"
                    row.reason = f"not there {config.deadline_s:g} s after the broadcast"
            if row.status == "delivered":
                row.arrived_s = at
            self._rows.append(row)
            self.fates[client] = Fate(row.status, row.reason or "", at)
        self._rows.sort(key=lambda row: row.client)
        for row in self._rows:
            row.notes = {"message": self._kind} if self._kind else {}

    def rows(self, seconds: float, notes: Mapping[str, float]) -> list[LedgerRow]:
        """Return the ledger's rows of a settled exchange that moved the clock by ``seconds``."""
        down = [] if self._cast is None else [self._cast]
        spent = sum(row.joules for row in down) + sum(row.joules for row in self._rows)
        total = RoundRow(
            self.number,
            asked=self._asked,
            delivered=sum(row.status == "delivered" for row in self._rows),
            uplink_bits=sum(row.bits for row in self._rows),
            downlink_bits=sum(row.bits for row in down),
            seconds=seconds,
            joules=spent + sum(row.compute_joules for row in self._rows),
            notes=notes,
        )
        return [*down, *self._rows, total]

    def _send(self, cast: Cast, clients: list[int]) -> None:
        if not clients:
            return
        down = self._air.downlink(cast.bits, self._links, np.array(clients, dtype=np.int64))
        row = self._cast or BroadcastRow(self.number, 0, 0.0, 0.0, down.rate_bps, 0, 0)
        row.bits += cast.bits
        row.seconds += down.seconds
        row.joules += down.joules * len(clients)
        row.rate_bps = min(row.rate_bps, down.rate_bps)
        row.listeners += len(clients)
        row.heard += int(down.heard.sum())
        self._cast = row
        for client, heard in zip(clients, down.heard, strict=True):
            if heard:
                self.heard.append(client)
            else:
                why = "did not hear the broadcast"
                self._rows.append(UploadRow(self.number, client, "missed", why))

    def _sent(self, client: int, answer: Answer, grant: Grant | None) -> UploadRow:
        devices = self._cell.config.devices
        row = UploadRow(
            self.number,
            client,
            "withheld",
            answer.problem,
            compute_seconds=answer.compute_seconds,
            compute_joules=devices[client % len(devices)].computing_w * answer.compute_seconds,
        )
        if answer.bits is None or grant is None:
            return row
        row.bits, row.granted_bits = answer.bits, grant.bits
        row.bandwidth_hz, row.power_w = grant.bandwidth_hz, grant.power_w
        row.rate_bps = grant.rate_bps
        row.snr_db = self._air.snr_db(self._links, grant)
        trip = self._air.uplink(answer.bits, self._links, grant)
        row.status, row.seconds, row.joules = trip.status, trip.seconds, trip.joules
        row.transmissions, row.reason = trip.transmissions, _REASONS.get(trip.status)
        return row
