"""FFA-LoRA: A is frozen, so averaging B averages the products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airtune.errors import UserError
from airtune.learning.phase import Phase, supervised
from airtune.methods.method import Method
from airtune.methods.views import Client, Setup


class FFALora(Method):
    """Federated averaging of LoRA's B alone; A stays as everybody started it.

    ``sum_n p_n B_n A = (sum_n p_n B_n) A``: no covariance is left out, and half of the bits go.

    Source: Sun et al. 2024, improving LoRA in privacy-preserving federated learning (2403.12313).
    """

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for adapters without a B that is shared."""
        super().__init__(config, setup)
        if not any(".lora_B." in name for name in self.shared(setup.initial)):
            raise UserError(
                "method.name: ffa_lora sends LoRA's B, and none is shared; use adapter.kind lora, "
                "and keep lora_B out of method.private."
            )

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client; a frozen A has no need to."""
        return [*self.config.private, "*.lora_A.*"]

    def phases(self, client: Client) -> list[Phase]:
        """Return local training of all but A."""
        trained = tuple(name for name in client.adapter if ".lora_A." not in name)
        return [Phase(client.data, supervised, self.setup.train.local_steps, trained)]
