"""From a method to what masks its uploads; the libraries for that come with an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airtune.federation.secure.config import SecurityConfig
from airtune.federation.secure.participants import Join
from airtune.federation.secure.terms import Terms
from airtune.methods.method import Method
from airtune.radio.air import Air
from airtune.wire import FixedPoint

if TYPE_CHECKING:
    from airtune.federation.secure.rounds import SecureSums


def sum_terms(security: SecurityConfig, method: Method) -> Terms | None:
    """Return what all sides know of masked sums, if uploads are masked."""
    known = method.setup
    if not security.secure_sum:
        return None
    return Terms(
        known.seed,
        security.needed(known.per_round),
        FixedPoint(security.clip, known.per_round),
        method.uplink_shapes(),
        known.examples / known.examples.sum(),
    )


def sums(security: SecurityConfig, method: Method, join: Join | None = None) -> SecureSums | None:
    """Return what masks uploads, if they are; ``join`` reaches clients that are not here."""
    terms = sum_terms(security, method)
    if terms is None:
        return None
    from airtune.federation.secure.local import LocalParticipants
    from airtune.federation.secure.rounds import SecureSums

    return SecureSums(terms, Air(method.setup.cell, method.setup.seed), join or LocalParticipants)
