"""Masked sums in the rounds of a run: each step crosses the air, is charged, and may be lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from airtune.federation.clock import Clock
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.records import MaskingRow, MaskingStep, Status, UploadRow
from airtune.federation.secure.collector import Collector
from airtune.federation.secure.messages import SecureSumError, check_sender
from airtune.federation.secure.participants import Join, Missing, Participants, Sent
from airtune.federation.secure.terms import Terms
from airtune.radio.air import Air
from airtune.radio.cell import Links
from airtune.wire import Dense, Masked
from airtune.wire.masked import shaped


class SecureSums:
    """What is the same in all rounds."""

    def __init__(self, terms: Terms, air: Air, join: Join) -> None:
        """``join`` makes the clients' sides of a round, wherever they are."""
        self.terms, self.air, self._join = terms, air, join

    def begin(
        self,
        orders: Sequence[Order],
        links: Links,
        clock: Clock[UploadRow],
        federation: Federation,
    ) -> MaskedRound:
        """Exchange keys and shares among those who heard the broadcast."""
        clients = [order.client for order in orders]
        people = self._join(federation, self.terms, clients, links.round)
        return MaskedRound(self, people, orders, links, clock)


class MaskedRound:
    """One round: keys and shares before training, masked payloads, and what unmasks their sum.

    A client that is lost before its shares came does not train; one that is lost after that is
    dropped from the sum. Steps take place outside the deadline, which is that of uploads: keys and
    shares end before it begins, unmasking comes after it. Every step costs its slowest client's
    time on its own grant, and the server's answer that of one broadcast, boxes of shares behind
    each other. ``rows`` belong into the ledger.

    A client that does not answer a step, or whose answer is refused, is lost as one whose message
    the air lost is.
    """

    def __init__(
        self,
        sums: SecureSums,
        people: Participants,
        orders: Sequence[Order],
        links: Links,
        clock: Clock[UploadRow],
    ) -> None:
        """Exchange keys and shares."""
        self._sums, self._people, self._links, self._clock = sums, people, links, clock
        self._grants = {order.client: order.grant for order in orders}
        about, threshold = sums.terms.context(links.round), sums.terms.threshold
        self._server = Collector(about, threshold, list(self._grants))
        self.rows: list[MaskingRow | UploadRow] = []
        self._lost: dict[int, tuple[Status, str]] = {}
        self._boxes: dict[int, bytes] = {}
        try:
            self._boxes = self._exchange_shares()
        except SecureSumError as error:
            for client in self._grants:
                self._lost.setdefault(client, ("withheld", str(error)))
        self._orders = [order for order in orders if order.client in self._boxes]
        unheard: tuple[Status, str] = "withheld", "it did not hear the others' keys or shares"
        for client in [order.client for order in orders if order.client not in self._boxes]:
            status, reason = self._lost.get(client, unheard)
            self.rows.append(UploadRow(links.round, client, status, reason))

    def exchange(self) -> list[Reply]:
        """Have those that go on train; return their replies, masked."""
        return self._people.exchange(self._orders, self._boxes)

    def mean(
        self, payloads: Mapping[int, Masked], uploads: Sequence[UploadRow]
    ) -> dict[int, Dense]:
        """Return the weighted mean of what arrived, which is all that is known of each upload.

        A sum that cannot be unmasked is none: its uploads are refused.
        """
        if not self._orders:
            return {}
        for client, payload in payloads.items():
            self._server.add(client, payload.words)
        self._lost.clear()
        own = [row for row in uploads if row.client in payloads]
        try:
            self._unmask(payloads)
            total = self._server.total()
        except SecureSumError as error:
            for row in own:
                _, reason = self._lost.get(row.client, ("refused", str(error)))
                row.status, row.reason = "refused", reason
            return {}
        for row in own:
            if row.client in self._lost and row.reason is None:
                row.reason = f"in the sum, yet {self._lost[row.client][1]}"
        terms = self._sums.terms
        weight = sum(float(terms.weights[client]) for client in payloads)
        numbers = terms.fixed.mean(total, weight)
        mean = Dense(shaped(numbers, terms.shapes))
        return dict.fromkeys(payloads, mean)

    # The steps.

    def _exchange_shares(self) -> dict[int, bytes]:
        """Exchange keys and shares; return the boxes of the clients that heard theirs."""
        server = self._server
        row = self._row("keys")
        keys = self._people.keys()
        self._up(row, keys, server.take_keys)
        roster = server.roster()
        heard = self._down(row, len(roster), set(keys) - set(self._lost))
        row = self._row("shares")
        self._up(row, self._people.shares(sorted(heard), roster), server.take_shares)
        boxes = server.boxes()
        there = self._down(row, sum(map(len, boxes.values())), set(boxes))
        return {client: boxes[client] for client in there}

    def _unmask(self, payloads: Mapping[int, Masked]) -> None:
        row = self._row("unmasking")
        request = self._server.arrived()
        heard = self._down(row, len(request), set(payloads))
        self._up(row, self._people.unmask(sorted(heard), request), self._server.take_unmasking)

    def _row(self, step: MaskingStep) -> MaskingRow:
        row = MaskingRow(self._links.round, step)
        self.rows.append(row)
        return row

    def _up(self, row: MaskingRow, messages: Sent, take: Callable[[bytes], None]) -> None:
        """Send clients' messages at the same time; the server takes those that arrive."""
        slowest, what = 0.0, "what it sent for the masked sum"
        for client, message in messages.items():
            if isinstance(message, Missing):
                self._lost[client] = message.fate, f"{message.reason} (masked sum, {row.step})"
                continue
            bits = 8 * len(message)
            trip = self._sums.air.uplink(
                bits, self._links, self._grants[client], f"masking {row.step}"
            )
            row.sent, row.uplink_bits = row.sent + 1, row.uplink_bits + bits
            row.joules, slowest = row.joules + trip.joules, max(slowest, trip.seconds)
            if not trip.arrived:
                self._lost[client] = "withheld", f"{what} did not arrive ({row.step})"
                continue
            try:
                check_sender(message, client)
                take(message)
                row.arrived += 1
            except SecureSumError as error:
                self._lost[client] = "refused", f"{what} was refused ({row.step}): {error}"
        measured = self._sums.air.config.measured
        self._spend(row, self._people.took_s if measured else slowest)

    def _down(self, row: MaskingRow, size: int, clients: set[int]) -> set[int]:
        """Send the server's answer; return who heard it."""
        listeners = np.array(sorted(clients), dtype=np.int64)
        cast = self._sums.air.downlink(8 * size, self._links, listeners)
        row.downlink_bits += 8 * size
        row.joules += cast.joules * len(listeners)
        self._spend(row, cast.seconds)
        return set(listeners[cast.heard].tolist())

    def _spend(self, row: MaskingRow, seconds: float) -> None:
        row.seconds += seconds
        self._clock.now += seconds
