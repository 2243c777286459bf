"""FedDF: parameters travel, and the server distils what the received models know together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field as Option
from pydantic import PositiveFloat, PositiveInt

from airtune.learning.distillation import Distillation
from airtune.learning.ensemble import Part, combine
from airtune.learning.knowledge import Positions, gather
from airtune.learning.phase import Phase
from airtune.methods.method import Method, MethodConfig
from airtune.methods.views import Delivery, State
from airtune.wire import ValueType

_MOST_ENTRIES = 256  # of each prediction that an ensemble keeps: all classes, the likeliest tokens


class FedDFConfig(MethodConfig):
    """Options of FedDF; nothing is private, as the server predicts with clients' models."""

    value_type: ValueType = Option("float32", description="how a number travels, both ways")

    temperature: PositiveFloat = Option(1.0, description="tau of distillation")
    server_steps: PositiveInt = Option(16, description="steps of distillation per round")
    public_batch_size: PositiveInt = Option(32, description="public texts in a step")


class FedDF(Method):
    """Federated averaging, then distillation of the clients' mean logits into the average.

    Source: Lin et al. 2020, ensemble distillation for model fusion (2006.07242): start from the
    weighted average of parameters, teacher is the plain mean of the clients' logits on public
    texts. Ours: Adam that starts anew each round; large vocabularies keep 256 entries each.
    """

    Config: ClassVar[type[MethodConfig]] = FedDFConfig
    needs_public = True
    why_not_summed = "its server learns from what each client's model says of public texts"

    @property
    def private(self) -> Sequence[str]:
        """No tensor is."""
        return ()

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Average what arrived, and learn from what those models say of public texts."""
        arrived = [d.payload for d in deliveries if d.payload is not None]
        state = super().aggregate(state, deliveries)
        if not arrived:
            return state
        config, setup, learner = self.config, self.setup, self.setup.server
        positions, k = Positions(setup.public), min(setup.width, _MOST_ENTRIES)
        parts = []
        for payload in arrived:
            seen = learner.predict(payload.tensors, setup.public)
            known = gather(seen, positions, setup.width, k)
            parts.append(Part(torch.arange(len(positions)), known.values, known.index))
        taught = positions.teach(combine(parts, len(positions), setup.width, "mask"))
        phase = Phase(
            taught,
            Distillation(config.temperature, width=setup.width),
            config.server_steps,
            batch_size=config.public_batch_size,
        )
        round = state.get("round", 0) + 1
        task = self.train_server(state["shared"], phase, round)
        shared = state["shared"] if task.diverged else task.adapter
        return {**state, "shared": shared, "round": round}
