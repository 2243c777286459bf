"""The rows of the ledger: one for each broadcast, each upload asked for, and each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal[
    "delivered",  # arrived and was aggregated; the reason says how late, where the server waits
    "outage",  # the link could not carry the granted rate
    "lost",  # a packet ran out of tries
    "late",  # not there by the deadline
    "skipped",  # not scheduled: the reason says why
    "missed",  # did not hear the broadcast, so it had nothing to learn from
    "diverged",  # its training loss was not finite
    "withheld",  # the client sent nothing
    "refused",  # what arrived was not a payload of this method
]


MaskingStep = Literal["keys", "shares", "unmasking"]


@dataclass
class BroadcastRow:
    """One message to many: ``joules`` is what all listeners together spent."""

    round: int
    bits: int
    seconds: float
    joules: float
    rate_bps: float
    listeners: int
    heard: int
    row: Literal["broadcast"] = "broadcast"


@dataclass
class UploadRow:
    """One client's part of a round.

    ``bits`` are those of the message itself; repeats show in ``transmissions`` (packets), seconds
    and joules. ``arrived_s`` is simulated time since the start of the run. ``loss`` and
    ``gradient_norm`` (before clipping) are means over the client's local steps. ``notes`` are what
    the method says of the upload.
    """

    round: int
    client: int
    status: Status
    reason: str | None = None
    bits: int = 0
    granted_bits: float | None = None
    bandwidth_hz: float = 0.0
    rate_bps: float = 0.0
    power_w: float = 0.0
    snr_db: float | None = None
    compute_seconds: float = 0.0
    compute_joules: float = 0.0
    seconds: float = 0.0
    joules: float = 0.0
    transmissions: int = 0
    arrived_s: float | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    notes: Mapping[str, float | str] = field(default_factory=dict)
    row: Literal["upload"] = "upload"


@dataclass
class RoundRow:
    """One round's totals; the scores are None where the round was not evaluated.

    ``train_loss`` and ``gradient_norm`` are means over clients whose training went well, the latter
    by their shares of all training examples.
    ``scores`` are what the method itself measures, of the server's model and, by names that begin
    with ``personal_``, of the clients' own in the mean. ``notes`` are what the method's server says
    of the round.
    """

    round: int
    asked: int = 0
    delivered: int = 0
    train_loss: float | None = None
    gradient_norm: float | None = None
    uplink_bits: int = 0
    downlink_bits: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    accuracy: float | None = None
    loss: float | None = None
    perplexity: float | None = None
    personal_accuracy: float | None = None
    personal_loss: float | None = None
    personal_global_accuracy: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, float] = field(default_factory=dict)
    row: Literal["round"] = "round"


@dataclass
class MaskingRow:
    """One step of a masked sum: what clients sent, and what the server answered.

    ``sent`` clients did, and of ``arrived`` it was of use. Clients send at the same time, so
    ``seconds`` are those of the slowest, and of the answer; ``joules`` are those of all.
    """

    round: int
    step: MaskingStep
    sent: int = 0
    arrived: int = 0
    uplink_bits: int = 0
    downlink_bits: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    row: Literal["masking"] = "masking"


@dataclass
class LinkRow:
    """One message over a measured link, as the device reported it.

    ``bits`` moved in ``seconds`` for a payload of ``body_bits``; ``round`` is the message's, 0 of
    what sounded the link. ``rate_bps`` is the estimate after it, ``deviation`` that of its
    logarithm. ``rest_seconds`` are those of the exchange besides this upload, or ``rest_at_least``
    so many.
    """

    round: int
    client: int
    way: Literal["up", "down"]
    body_bits: int
    bits: int
    seconds: float
    rate_bps: float | None = None
    deviation: float | None = None
    rest_seconds: float | None = None
    rest_at_least: bool = False
    row: Literal["link"] = "link"


LedgerRow = BroadcastRow | UploadRow | MaskingRow | LinkRow | RoundRow
MessageRow = BroadcastRow | UploadRow | MaskingRow


def as_dict(row: LedgerRow) -> dict[str, Any]:
    """Return a row with its kind first."""
    values = vars(row)  # rows are flat: dataclasses.asdict would copy each number for its safety
    return {"row": values["row"], **values}


_KINDS: dict[str, type[LedgerRow]] = {
    "broadcast": BroadcastRow,
    "upload": UploadRow,
    "masking": MaskingRow,
    "link": LinkRow,
    "round": RoundRow,
}


def as_row(values: Mapping[str, Any]) -> LedgerRow:
    """Return the row that :func:`as_dict` made these values of, or a ledger's line has."""
    return _KINDS[values["row"]](**values)
