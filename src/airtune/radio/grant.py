"""The hinge of the house."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grant:
    """What one client may send this round: the radio side writes it, the learning side spends it.

    ``bits`` is the largest payload (inf without a deadline); power, bandwidth and rate say how it
    is sent. ``blocks`` are the numbers of resource blocks that are the client's own; None spreads
    the bandwidth over the band.
    """

    client: int
    bits: float
    power_w: float
    bandwidth_hz: float
    rate_bps: float
    blocks: tuple[int, ...] | None = None
