"""The public texts, which everybody has, each model in its own tokens."""

from __future__ import annotations

import torch

from airtune.learning.data.examples import Examples
from airtune.learning.knowledge import Knowledge, Positions


class PublicTexts:
    """Where predictions about the public texts lie, and the texts with what is known of them.

    Positions are numbered alike whatever a model's tokens are.
    """

    def __init__(self, texts: Examples) -> None:
        """``texts`` are in the server's tokens; others become known when asked for."""
        self._positions: dict[int, Positions] = {}
        self._taught: tuple[torch.Tensor | None, dict[int, Examples]] = (None, {})
        self.positions = self.positions_of(texts)

    def positions_of(self, texts: Examples) -> Positions:
        """Return where predictions about the texts, in the tokens of some model, lie."""
        key = id(texts.corpus)
        if key not in self._positions:
            self._positions[key] = Positions(texts)
        return self._positions[key]

    def taught(self, known: Knowledge, texts: Examples) -> Examples:
        """Return the texts with what is known beside them, made once for all who learn it."""
        if self._taught[0] is not known.values:
            self._taught = known.values, {}
        made, key = self._taught[1], id(texts.corpus)
        if key not in made:
            made[key] = self.positions_of(texts).teach(known)
        return made[key]
