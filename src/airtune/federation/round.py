"""The dance of one round, written once for every method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from airtune.federation.clock import Clock
from airtune.federation.interface import Federation, Order, Reply
from airtune.federation.measuring import MeasuredCell, as_it_took
from airtune.federation.records import (
    BroadcastRow,
    MaskingRow,
    MessageRow,
    RoundRow,
    UploadRow,
)
from airtune.methods.method import Method
from airtune.methods.views import Delivery, State
from airtune.radio.air import Air
from airtune.radio.cell import Cell, Links
from airtune.radio.compute import Passes, compute_joules, compute_seconds
from airtune.scheduling.plan import Plan
from airtune.wire import Masked, WireError, decode, encode

if TYPE_CHECKING:  # its libraries come with an extra
    from airtune.federation.secure.rounds import SecureSums


@dataclass
class Outcome:
    """What a round left behind: the server's state, its plan, and rows for the ledger."""

    state: State
    plan: Plan
    messages: list[MessageRow]
    totals: RoundRow


class RoundRunner:
    """Everything between a method and the air; the clock is all that it remembers."""

    def __init__(
        self,
        method: Method,
        federation: Federation,
        cell: Cell | MeasuredCell,
        passes: Sequence[Passes],
        sums: SecureSums | None = None,
    ) -> None:
        """Set up; ``passes`` say what a token's arithmetic is, ``sums`` that uploads are masked.

        Client i has number i mod count of them, as it has of the models.
        """
        self.clock: Clock[UploadRow] = Clock()
        self._method, self._federation, self._cell = method, federation, cell
        self.measured = cell if isinstance(cell, MeasuredCell) else None
        self._air = Air(cell.config, cell.seed)
        self._passes, self._sums = passes, sums
        self._weights = method.setup.examples / method.setup.examples.sum()

    def run(self, state: State, round: int) -> Outcome:
        """Run one round from the server's state."""
        started = self.clock.now
        links = self._cell.links(round)
        plan = self._method.plan(state, links)
        messages: list[MessageRow] = [
            UploadRow(round, client, "skipped", reason) for client, reason in plan.skipped.items()
        ]
        payloads: dict[int, Any] = {}
        if plan.grants:
            message = encode(self._method.broadcast(state, plan))
            cast, orders, missed = self._broadcast(message, plan, links)
            masking = self._sums and self._sums.begin(orders, links, self.clock, self._federation)
            replies = masking.exchange() if masking else self._federation.exchange(orders)
            uploads = [self._charge(reply, plan, links) for reply in replies]
            self._collect(uploads)
            payloads = self._open(replies, uploads, state)
            if masking:
                mean = masking.mean(payloads, uploads)
                payloads = {c: self._method.accept(state, each) for c, each in mean.items()}
                messages += masking.rows
            messages += [cast, *missed, *uploads]
        messages.sort(key=lambda row: row.client if isinstance(row, UploadRow) else -1)
        selector, had = self._method.setup.selector, state.get("average_rates")
        state = self._method.aggregate(state, self._deliveries(messages, payloads, plan))
        rates = selector.after(had, links, plan)
        if rates is not None:
            state = {**state, "average_rates": torch.from_numpy(rates)}
        totals = _totals(round, plan, messages, len(payloads), self.clock.now - started)
        totals.gradient_norm = self._gradient_norm(messages)
        totals.notes = state.get("notes", {})
        return Outcome(state, plan, messages, totals)

    def _broadcast(
        self, message: bytes, plan: Plan, links: Links
    ) -> tuple[BroadcastRow, list[Order], list[UploadRow]]:
        """Send one message to all of the plan; return orders for those who heard it."""
        bits, listeners = 8 * len(message), np.fromiter(plan.grants, dtype=np.int64)
        cast = self._air.downlink(bits, links, listeners)
        self.clock.now += cast.seconds
        row = BroadcastRow(
            links.round,
            bits,
            cast.seconds,
            cast.joules * len(listeners),
            cast.rate_bps,
            len(listeners),
            int(cast.heard.sum()),
        )
        orders = [
            Order(int(client), links.round, message, plan.grants[int(client)])
            for client in listeners[cast.heard]
        ]
        missed = [
            UploadRow(links.round, int(client), "missed", "did not hear the broadcast")
            for client in listeners[~cast.heard]
        ]
        return row, orders, missed

    def _charge(self, reply: Reply, plan: Plan, links: Links) -> UploadRow:
        """Charge a reply's training and trip."""
        devices, grant = self._cell.config.devices, plan.grants[reply.client]
        passes = self._passes[reply.client % len(self._passes)]
        work = passes.training(reply.tokens) + passes.inference(reply.predicted_tokens)
        row = UploadRow(
            links.round,
            reply.client,
            "diverged" if reply.diverged else reply.fate,
            reply.problem,
            granted_bits=grant.bits,
            bandwidth_hz=grant.bandwidth_hz,
            rate_bps=grant.rate_bps,
            power_w=grant.power_w,
            snr_db=None if self.measured else self._air.snr_db(links, grant),
            compute_seconds=float(compute_seconds(devices, reply.client, work)),
            compute_joules=float(compute_joules(devices, reply.client, work)),
            loss=reply.loss,
            gradient_norm=reply.gradient_norm,
            notes={**plan.notes.get(reply.client, {}), **reply.notes},
        )
        if self.measured:
            return as_it_took(row, reply)
        if reply.message is not None:
            row.bits = 8 * len(reply.message)
            trip = self._air.uplink(row.bits, links, grant)
            row.status, row.seconds, row.joules = trip.status, trip.seconds, trip.joules
            row.transmissions = trip.transmissions
        return row

    def _collect(self, uploads: Sequence[UploadRow]) -> None:
        """Let the clock run to the end of the round and note what came when, or too late.

        The server waits for those who fail, too: it cannot know. With ``late: wait`` that lasts
        until the last one, and what came after the deadline says how long after.
        """
        deadline, waits = self._cell.config.deadline_s, self._cell.config.late == "wait"
        due = math.inf if deadline is None else self.clock.now + deadline
        limit = math.inf if waits else due
        for row in uploads:
            self.clock.after(row.compute_seconds + row.seconds, row)
        for row in self.clock.drain(limit):
            if row.status == "delivered":
                row.arrived_s = self.clock.now
                if self.clock.now > due:
                    row.reason = f"came {self.clock.now - due:.3g} s after the deadline"
        for row in self.clock.give_up(limit):
            if row.status == "delivered":
                row.status, row.reason = "late", f"not there {deadline:g} s after the broadcast"

    def _open(
        self, replies: Sequence[Reply], uploads: Sequence[UploadRow], state: State
    ) -> dict[int, Any]:
        """Return the payloads of those that arrived, by client; note what had to be refused."""
        payloads = {}
        for reply, row in zip(replies, uploads, strict=True):
            if row.status == "delivered" and reply.message is not None:
                try:
                    payloads[reply.client] = self._decode(reply.message, state)
                except WireError as error:
                    row.status, row.reason = "refused", str(error)
        return payloads

    def _decode(self, message: bytes, state: State) -> Any:
        payload = decode(message, self._method.uplink_shapes())
        if not isinstance(payload, Masked if self._sums else self._method.uplink_payload):
            raise WireError(f"a {type(payload).__name__} payload is not what this method sends.")
        numbers = [each.reshape(-1) for each in payload.numbers()]
        # All at once: this is done for every upload, and bad ones are rare.
        if numbers and not bool(torch.isfinite(torch.cat(numbers)).all()):
            raise WireError("it holds numbers that are not finite.")
        return payload if self._sums else self._method.accept(state, payload)

    def _deliveries(
        self, messages: Sequence[MessageRow], payloads: dict[int, Any], plan: Plan
    ) -> list[Delivery]:
        return [
            Delivery(
                client=row.client,
                payload=payloads.get(row.client),
                weight=float(self._weights[row.client]),
                grant=plan.grants.get(row.client),
                loss=row.loss,
                seconds=row.compute_seconds + row.seconds,
            )
            for row in messages
            if isinstance(row, UploadRow)
        ]

    def _gradient_norm(self, messages: Sequence[MessageRow]) -> float | None:
        """Return the weighted mean over the clients that trained."""
        found = [
            (self._weights[row.client], row.gradient_norm)
            for row in messages
            if isinstance(row, UploadRow) and row.gradient_norm is not None
        ]
        if not found:
            return None
        weights, norms = np.array(found).T
        return float(weights @ norms / weights.sum())


def _totals(
    round: int,
    plan: Plan,
    messages: Sequence[MessageRow],
    delivered: int,
    seconds: float,
) -> RoundRow:
    uploads = [row for row in messages if isinstance(row, UploadRow)]
    maskings = [row for row in messages if isinstance(row, MaskingRow)]
    losses = [row.loss for row in uploads if row.loss is not None]
    return RoundRow(
        round,
        asked=len(plan.grants) + len(plan.skipped),
        delivered=delivered,
        train_loss=float(np.mean(losses)) if losses else None,
        uplink_bits=sum(r.bits for r in uploads) + sum(r.uplink_bits for r in maskings),
        downlink_bits=sum(r.bits for r in messages if isinstance(r, BroadcastRow))
        + sum(r.downlink_bits for r in maskings),
        seconds=seconds,
        joules=sum(row.joules for row in messages) + sum(row.compute_joules for row in uploads),
    )
