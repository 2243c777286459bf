"""What rounds cost, read from their ledger: a rehearsal's, or that of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airtune.federation.records import BroadcastRow, LedgerRow, MaskingRow, RoundRow, UploadRow


@dataclass(frozen=True)
class Spread:
    """Mean, median and 95 % quantile of what differs from round to round; NaN of nothing."""

    mean: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values."""
        if len(values) == 0:
            return cls(np.nan, np.nan, np.nan)
        found = np.asarray(values, dtype=np.float64)
        return cls(*map(float, (found.mean(), np.median(found), np.quantile(found, 0.95))))


@dataclass(frozen=True)
class Costs:
    """Costs of a round and of a device.

    ``upload_bits``, ``upload_s`` (on the air with repeats and their delays), ``compute_s`` and
    ``finish_s`` (their sum) are over uploads that were sent; the others over rounds.
    ``airtime_s`` of a round is its broadcast, its longest upload, and what masks uploads;
    ``round_s`` has the computing as well, and the wait for a deadline. ``device_j`` is over
    devices and rounds in which they took part: ``compute_j`` of it is computing, the rest radio.
    ``client_j`` is a client's mean over all rounds, over those that were ever asked. ``arrived``
    is the share of all that was asked for; ``always``, ``sometimes``, ``never`` count clients by
    what arrived of theirs; ``failures`` are the others by status, ``reasons`` those given, most
    frequent first.
    """

    rounds: int
    uplink_bits: Spread
    downlink_bits: Spread
    upload_bits: Spread
    upload_s: Spread
    compute_s: Spread
    finish_s: Spread
    airtime_s: Spread
    round_s: Spread
    device_j: Spread
    compute_j: Spread
    client_j: Spread
    arrived: float
    always: int
    sometimes: int
    never: int
    failures: dict[str, int]
    reasons: dict[str, int]

    @classmethod
    def of(cls, rows: Sequence[LedgerRow]) -> Costs:
        """Return what the rounds of a ledger cost; the untrained model's round 0 costs nothing."""
        rounds = [row for row in rows if isinstance(row, RoundRow) and row.round > 0]
        casts = {row.round: row for row in rows if isinstance(row, BroadcastRow)}
        asked = [row for row in rows if isinstance(row, UploadRow)]
        sent = [row for row in asked if row.bits]
        longest = dict.fromkeys((row.round for row in rounds), 0.0)
        for row in sent:
            longest[row.round] = max(longest[row.round], row.seconds)
        airtime = {
            n: most + (casts[n].seconds if n in casts else 0.0) for n, most in longest.items()
        }
        beside = {n: cast.joules / max(cast.listeners, 1) for n, cast in casts.items()}
        for step in (row for row in rows if isinstance(row, MaskingRow)):
            airtime[step.round] += step.seconds
            beside[step.round] += step.joules / max(step.sent, 1)
        took_part = [row for row in asked if row.status != "skipped"]
        spent = {row.client: 0.0 for row in asked}
        for row in took_part:
            spent[row.client] += row.joules + row.compute_joules + beside[row.round]
        shares: dict[int, list[bool]] = {}
        for row in asked:
            shares.setdefault(row.client, []).append(row.status == "delivered")
        always = sum(all(each) for each in shares.values())
        never = sum(not any(each) for each in shares.values())
        failed = Counter(row.status for row in asked if row.status != "delivered")
        reasons = Counter(row.reason for row in asked if row.reason is not None)
        return cls(
            rounds=len(rounds),
            uplink_bits=Spread.of([row.uplink_bits for row in rounds]),
            downlink_bits=Spread.of([row.downlink_bits for row in rounds]),
            upload_bits=Spread.of([row.bits for row in sent]),
            upload_s=Spread.of([row.seconds for row in sent]),
            compute_s=Spread.of([row.compute_seconds for row in sent]),
            finish_s=Spread.of([row.compute_seconds + row.seconds for row in sent]),
            airtime_s=Spread.of([*airtime.values()]),
            round_s=Spread.of([row.seconds for row in rounds]),
            device_j=Spread.of(
                [row.joules + row.compute_joules + beside[row.round] for row in took_part]
            ),
            compute_j=Spread.of([row.compute_joules for row in took_part]),
            client_j=Spread.of([joules / max(len(rounds), 1) for joules in spent.values()]),
            arrived=1.0 - failed.total() / max(len(asked), 1),
            always=always,
            sometimes=len(shares) - always - never,
            never=never,
            failures=dict(failed.most_common()),
            reasons=dict(reasons.most_common()),
        )


@dataclass(frozen=True)
class Priced:
    """What an experiment with other ``settings``, by key, costs; or the ``problem`` with it.

    ``rounds`` are those of the whole run; ``said`` is the change in words.
    """

    settings: dict[str, str]
    costs: Costs | None
    rounds: int = 0
    problem: str = ""
    said: str = ""

    @property
    def run_seconds(self) -> float:
        """Seconds of the whole run; NaN without costs."""
        return np.nan if self.costs is None else self.rounds * self.costs.round_s.mean
