"""What devices report of their links, and what the server makes of it: estimates and rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from airtune.federation.contents import Trip
from airtune.federation.interface import Reply, Took
from airtune.federation.records import LinkRow, UploadRow, as_row
from airtune.radio.config import CellConfig
from airtune.radio.measured import Ceilings, MeasuredLinks, Rates, Rests, measured_links


@dataclass(frozen=True)
class _Exchange:
    """The last with a client; one that was given up has these seconds or more, for these bits."""

    round: int
    seconds: float
    given_up: bool = False
    bits: float = 0.0


class MeasuredCell:
    """The links of a run between machines, as known before a round.

    An upload is reported with the device's next answer, so that a round is planned with those
    before the last, and with what an answer that is not there says of a link that became slower.
    Estimates are a function of the rows that come of reports: a run that goes on reads its ledger
    again.
    """

    def __init__(self, config: CellConfig, clients: int, seed: int) -> None:
        self.config, self.seed = config, seed
        self._up, self._down = Rates(clients), Rates(clients)
        self._rests = Rests(clients)
        self._engine = np.full(clients, np.nan)
        self._last = np.zeros(clients, dtype=np.int64)  # rounds of the last reports
        self._ceilings = Ceilings(clients)
        self._largest = np.zeros(clients)  # bits of the largest upload that was reported
        self._exchanges: dict[int, _Exchange] = {}
        self._rows: list[LinkRow] = []
        self.listen: Callable[[], None] = lambda: None  # takes what came since the last question

    def links(self, round: int) -> MeasuredLinks:
        """Return the links of a round."""
        self.listen()
        ceilings = self._ceilings.rate_bps
        return measured_links(round, self._up, self._rests, self._engine, self._last, ceilings)

    def is_known(self, client: int) -> bool:
        """Return whether a client's uplink was measured."""
        return bool(np.isfinite(self._up.rate_bps[client]))

    # What comes in.

    def took(self, client: int, round: int, seconds: float) -> None:
        """Note how long a round's exchange with a client took."""
        self._exchanges[client] = _Exchange(round, seconds)

    def gave_up(self, client: int, round: int, seconds: float, granted: float) -> None:
        """Note that a client's answer was not there so many seconds after the order.

        It has at most ``granted`` bits; that it is as long as the largest before is a guess.
        """
        bits = min(granted, float(self._largest[client]) or math.inf)
        self._exchanges[client] = _Exchange(round, seconds, True, bits)
        self._bound(client)

    def still_out(self, client: int, seconds: float) -> None:
        """Note that the answer that was given up is not there so many seconds after its order."""
        last = self._exchanges.get(client)
        if last is not None and last.given_up and seconds > last.seconds:
            self._exchanges[client] = replace(last, seconds=seconds)
            self._bound(client)

    def asked_idly(self, client: int, seconds: float) -> None:
        """Note what an exchange takes in which nothing is computed or sent."""
        self._engine[client] = seconds

    def came_down(self, client: int, trip: Trip) -> None:
        """Take the report of an order's way down."""
        self._enter(LinkRow(trip.round, client, "down", *_numbers(trip)))

    def went_up(self, client: int, trip: Trip) -> None:
        """Take the report of an upload."""
        row = LinkRow(trip.round, client, "up", *_numbers(trip))
        last = self._exchanges.get(client)
        if last is not None and last.round == trip.round > 0:
            row.rest_seconds = max(last.seconds - trip.seconds, 0.0)
            row.rest_at_least = last.given_up
        self._enter(row)

    # Rows.

    def rows(self) -> list[LinkRow]:
        """Return what was reported since this was last called."""
        rows, self._rows = self._rows, []
        return rows

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Go on from the ledger of an earlier part of the run, and then from what came since."""
        since, clients = self._rows, len(self._last)
        self._up, self._down, self._rests = Rates(clients), Rates(clients), Rests(clients)
        for row in [*map(as_row, rows), *since]:
            if isinstance(row, LinkRow):
                self._see(row)

    def _bound(self, client: int) -> None:
        last = self._exchanges[client]
        if math.isfinite(last.bits):
            self._ceilings.see(client, last.round, last.bits, last.seconds, self._up, self._rests)

    def _enter(self, row: LinkRow) -> None:
        self._see(row)
        rates = self._up if row.way == "up" else self._down
        rate, deviation = rates.rate_bps[row.client], rates.deviation[row.client]
        self._rows.append(replace(row, rate_bps=float(rate), deviation=float(deviation)))

    def _see(self, row: LinkRow) -> None:
        rates = self._up if row.way == "up" else self._down
        rates.see(row.client, row.body_bits, row.bits, row.seconds)
        if row.way == "up":
            self._last[row.client] = max(self._last[row.client], row.round)
            self._ceilings.measured(row.client, row.round)
            if row.round > 0:  # else it was no upload, but what sounded the link
                self._largest[row.client] = max(self._largest[row.client], row.body_bits)
        if row.rest_seconds is not None:
            self._rests.see(row.client, row.rest_seconds, row.rest_at_least)


def as_it_took(row: UploadRow, reply: Reply) -> UploadRow:
    """Return a row with what machines took, the way down included; what they draw is not known."""
    row.joules = row.compute_joules = math.nan
    took = reply.took or Took(0.0, 0.0)
    row.compute_seconds = took.compute_seconds
    row.seconds = max(took.seconds - took.compute_seconds, 0.0)
    if reply.message is not None:
        row.bits, row.status = 8 * len(reply.message), "delivered"
    return row


def _numbers(trip: Trip) -> tuple[int, int, float]:
    return 8 * trip.body_bytes, 8 * trip.bytes, trip.seconds
