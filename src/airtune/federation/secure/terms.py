"""What all sides of a run's masked sums know before its first round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.federation.secure.messages import context
from airtune.wire import FixedPoint, Shapes


@dataclass(frozen=True)
class Terms:
    """The same for the server and every client, so that none of it travels.

    ``threshold`` clients have to stay in a round, ``shapes`` are those of what each sends,
    ``weights`` [clients] their shares of all examples.
    """

    seed: int
    threshold: int
    fixed: FixedPoint
    shapes: Shapes
    weights: np.ndarray

    def context(self, round: int) -> bytes:
        """Return the 16 bytes that a round's messages carry."""
        return context(str(self.seed), round)
