"""How many entries of each prediction, about how many texts, a message of so many bits carries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field as Option
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from airtune.learning.ensemble import Rule
from airtune.learning.knowledge import Positions
from airtune.methods.distilling import DistillingConfig
from airtune.wire import ValueBits, message_bits


class AdaptiveConfig(DistillingConfig):
    """How many entries are sent; symbols as in the specification."""

    aggregation: Rule = Option("mag", description="how the server combines what clients sent")
    k: PositiveInt | None = Option(
        None, description="entries of each prediction; default: as many as the channel carries"
    )
    k_min: PositiveInt = Option(1, description="fewest entries that are worth sending")
    k_max: PositiveInt | None = Option(None, description="most; default: all there are")
    uplink_seconds: PositiveFloat | None = Option(
        0.5, description="T, airtime that an upload may take; null: only the grant limits it"
    )
    usable: PositiveFloat = Option(
        0.8, le=1, description="eta, share of the rate times T that k counts on"
    )
    min_texts: PositiveInt = Option(16, description="fewest public texts that are worth sending")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.k_max is not None and self.k_max < self.k_min:
            raise ValueError(f"k_max ({self.k_max}) is below k_min ({self.k_min})")
        if self.k is not None and not self.k_min <= self.k <= (self.k_max or self.k):
            bounds = f"{self.k_min} to {self.k_max or 'all'}"
            raise ValueError(f"k ({self.k}) is outside of k_min to k_max ({bounds})")
        return self


def largest(choices: range, size: Callable[[int], float], budget: float) -> int | None:
    """Return the largest choice whose size is at most ``budget``, None if there is none.

    ``size`` must not fall from one choice to the next.
    """
    fitting = bisect_right(choices, budget, key=size)
    return choices[fitting - 1] if fitting else None


@dataclass(frozen=True)
class Sizes:
    """Sizes of messages of logits, encoded, in bits, and what of one is within a budget.

    ``positions`` are those of all public texts, ``width`` the entries that a prediction has;
    ``projections`` [texts, taps, rank] go along only with logits of all texts.
    """

    positions: Positions
    width: int
    value_bits: ValueBits
    projections: tuple[int, int, int] | None
    projection_bits: ValueBits

    def bits(self, k: int, texts: Tensor | None = None, projected: bool = False) -> int:
        """Return the size of a message about these public texts, None for all of them."""
        return message_bits(
            self.positions.within(texts),
            k,
            self.width,
            self.value_bits,
            None if texts is None else len(texts),
            self.projections if projected else None,
            self.projection_bits,
        )

    def entries(self, fewest: int, most: int, budget: float, projected: bool) -> int | None:
        """Return how many entries of all texts fit, None if not even the fewest do."""

        def size(k: int) -> int:
            return self.bits(k, projected=projected)

        # All entries need no index, so only up to one less does the size grow with k.
        return most if size(most) <= budget else largest(range(fewest, most), size, budget)

    def texts(self, order: Tensor, k: int, fewest: int, budget: float) -> Tensor | None:
        """Return the first of these texts, ascending, of which k entries fit; None: too few do."""
        counts = range(fewest, len(order))
        count = largest(counts, lambda n: self.bits(k, order[:n]), budget)
        return None if count is None else order[:count].sort().values

    def longest(self, count: int) -> Tensor:
        """Return the texts with the most predictions, ascending."""
        sizes = np.bincount(self.positions.text, minlength=len(self.positions.examples))
        return torch.from_numpy(np.sort(np.argsort(-sizes)[:count]))
