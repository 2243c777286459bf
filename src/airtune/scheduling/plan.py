"""The outcome of scheduling one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airtune.radio.grant import Grant


@dataclass(frozen=True)
class Plan:
    """Who transmits in a round, by ascending client, and why the others asked for do not."""

    round: int
    grants: dict[int, Grant]
    skipped: dict[int, str]
    notes: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def with_skipped(self, others: Mapping[int, str]) -> Plan:
        """Return the plan with more clients who do not transmit, and why."""
        return replace(self, skipped=dict(sorted({**self.skipped, **others}.items())))
