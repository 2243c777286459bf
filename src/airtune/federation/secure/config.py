"""What an experiment says of security."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from airtune.config import Config


class SecurityConfig(Config):
    """What the server may see of uploads."""

    secure_sum: bool = Field(
        False,
        description="clients mask what they send, so that the server learns the weighted mean and "
        "no single upload",
    )
    threshold: PositiveInt | None = Field(
        None,
        description="clients that have to stay for a masked sum, more than half of those asked in "
        "a round; default: more than two thirds",
    )
    clip: float = Field(
        16.0,
        gt=0.0,
        lt=2.0**30,
        description="largest size of a number in a masked sum; larger ones are sent as this",
    )

    def needed(self, asked: int) -> int:
        """Return how many of the clients asked in a round have to stay."""
        return 2 * asked // 3 + 1 if self.threshold is None else self.threshold
