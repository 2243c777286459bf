"""Masked sums in the rounds of a run: each step crosses the air, is charged, and may be lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from airtune.federation.clock import Clock
from airtune.federation.interface import Order, Reply
from airtune.federation.records import MaskingRow, UploadRow
from airtune.federation.secure.collector import Collector
from airtune.federation.secure.config import SecurityConfig
from airtune.federation.secure.local import LocalParticipants
from airtune.federation.secure.messages import SecureSumError, context
from airtune.radio.air import Air
from airtune.radio.cell import Links
from airtune.wire import Dense, FixedPoint, Masked, Shapes
from airtune.wire.masked import shaped


class SecureSums:
    """What is the same in all rounds."""

    def __init__(
        self, config: SecurityConfig, asked: int, shapes: Shapes, weights: np.ndarray, air: Air
    ) -> None:
        """``asked`` clients are in a round, ``weights`` [clients] their shares of all examples."""
        self.threshold = config.needed(asked)
        self.fixed = FixedPoint(config.clip, asked)
        self.shapes, self.weights, self.air = shapes, weights, air

    def begin(self, orders: Sequence[Order], links: Links, clock: Clock[UploadRow]) -> MaskedRound:
        """Exchange keys and shares among those who heard the broadcast."""
        return MaskedRound(self, orders, links, clock)


class MaskedRound:
    """One round: keys and shares before training, masked payloads, and what unmasks their sum.

    A client that is lost before its shares came does not train; one that is lost after that is
    dropped from the sum. Steps take place outside the deadline, which is that of uploads: keys and
    shares end before it begins, unmasking comes after it. Every step costs its slowest client's
    time on its own grant, and the server's answer that of one broadcast, boxes of shares behind
    each other. ``orders`` are those that go on, ``rows`` belong into the ledger.
    """

    def __init__(
        self, sums: SecureSums, orders: Sequence[Order], links: Links, clock: Clock[UploadRow]
    ) -> None:
        """Exchange keys and shares."""
        self._sums, self._links, self._clock = sums, links, clock
        about = context(str(sums.air.seed), links.round)
        self._grants = {order.client: order.grant for order in orders}
        weights = {client: float(sums.weights[client]) for client in self._grants}
        self._people = LocalParticipants(about, sums.threshold, weights, sums.fixed, sums.shapes)
        self._server = Collector(about, sums.threshold, list(weights))
        self.rows: list[MaskingRow | UploadRow] = []
        self._lost: dict[int, str] = {}
        try:
            there = self._exchange()
        except SecureSumError as error:
            there = set()
            self._lost = {client: str(error) for client in self._grants} | self._lost
        self.orders = [order for order in orders if order.client in there]
        for client in [order.client for order in orders if order.client not in there]:
            reason = self._lost.get(client, "it did not hear the others' keys or shares")
            self.rows.append(UploadRow(links.round, client, "withheld", reason))

    def masked(self, replies: Sequence[Reply]) -> list[Reply]:
        """Return the replies as clients send them: masked."""
        return [self._people.masked(reply) for reply in replies]

    def mean(
        self, payloads: Mapping[int, Masked], uploads: Sequence[UploadRow]
    ) -> dict[int, Dense]:
        """Return the weighted mean of what arrived, which is all that is known of each upload.

        A sum that cannot be unmasked is none: its uploads are refused.
        """
        if not self.orders:
            return {}
        for client, payload in payloads.items():
            self._server.add(client, payload.words)
        try:
            self._unmask(payloads)
            total = self._server.total()
        except SecureSumError as error:
            for row in uploads:
                if row.client in payloads:
                    row.status, row.reason = "refused", str(error)
            return {}
        weight = sum(float(self._sums.weights[client]) for client in payloads)
        numbers = self._sums.fixed.mean(total, weight)
        mean = Dense(shaped(numbers, self._sums.shapes))
        return dict.fromkeys(payloads, mean)

    # The steps.

    def _exchange(self) -> set[int]:
        """Exchange keys and shares; return the clients that hold what they need to go on."""
        clients, server = self._people.clients, self._server
        row = self._row("keys")
        keys = {client: each.keys() for client, each in clients.items()}
        self._up(row, keys, server.take_keys)
        roster = server.roster()
        heard = self._down(row, len(roster), set(keys) - set(self._lost))
        row = self._row("shares")
        shares = {client: clients[client].shares(roster) for client in sorted(heard)}
        self._up(row, shares, server.take_shares)
        boxes = server.boxes()
        there = self._down(row, sum(map(len, boxes.values())), set(boxes))
        for client in there:
            clients[client].keep(boxes[client])
        return there

    def _unmask(self, payloads: Mapping[int, Masked]) -> None:
        row = self._row("unmasking")
        request = self._server.arrived()
        heard = self._down(row, len(request), set(payloads))
        answers = {client: self._people.clients[client].unmask(request) for client in sorted(heard)}
        self._up(row, answers, self._server.take_unmasking)

    def _row(self, step: str) -> MaskingRow:
        row = MaskingRow(self._links.round, step)  # type: ignore[arg-type]
        self.rows.append(row)
        return row

    def _up(
        self, row: MaskingRow, messages: Mapping[int, bytes], take: Callable[[bytes], None]
    ) -> None:
        """Send clients' messages at the same time; the server takes those that arrive."""
        slowest = 0.0
        for client, message in messages.items():
            bits = 8 * len(message)
            trip = self._sums.air.uplink(
                bits, self._links, self._grants[client], f"masking {row.step}"
            )
            row.sent, row.uplink_bits = row.sent + 1, row.uplink_bits + bits
            row.joules, slowest = row.joules + trip.joules, max(slowest, trip.seconds)
            if trip.arrived:
                take(message)
                row.arrived += 1
            else:
                self._lost[client] = f"what it sent for the masked sum did not arrive ({row.step})"
        self._spend(row, slowest)

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
