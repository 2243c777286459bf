"""What SOFT and its coded form share: the client's training, and a scheduler with a memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field as Option
from pydantic import NonNegativeFloat
from torch import Tensor

from airtune.learning.components import Sent
from airtune.learning.low_rank import Factors
from airtune.learning.orthogonality import Form, Orthogonal
from airtune.learning.phase import Phase, supervised
from airtune.methods.method import MethodConfig
from airtune.methods.residual import RepairedConfig, RepairedLora
from airtune.methods.views import Client, Delivery, Setup, State
from airtune.radio.cell import Links
from airtune.radio.units import Ints
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Pieces, Upload
from airtune.scheduling.plan import Plan

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class ScheduledConfig(RepairedConfig, LatencyConfig):
    """Options of training and of the scheduler; symbols as in the specification."""

    orthogonality: NonNegativeFloat = Option(1e-2, description="mu, weight of the penalty")
    penalty: Form = Option(
        "off_diagonal", description="components orthogonal, or literally orthonormal"
    )
    error_feedback: float = Option(
        0.0, ge=0, le=1, description="share of what was not sent that is owed in the next round"
    )
    residual: bool = Option(
        False, description="move what averaging A and B apart leaves out into frozen weights"
    )
    train_a: bool = Option(True, description="false: LoRA's A stays as it started (FFA-LoRA)")


class ScheduledLora(RepairedLora):
    """Clients train ``F + mu R`` and send as much of it as a latency scheduler grants.

    What a client's pieces weigh comes with its upload, for the next round's plan. What it did not
    send it owes: ``error_feedback`` times that is added to its next change.
    """

    Config: ClassVar[type[MethodConfig]] = ScheduledConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__(config, setup)
        weights = setup.examples / setup.examples.sum()
        asked = min(setup.per_round, len(weights))
        self.scheduler = LatencyScheduler(config, setup.cell, self.sizes, weights, asked)

    @property
    @abstractmethod
    def sizes(self) -> Pieces:
        """What an upload is made of, for the scheduler."""

    @property
    def rule(self) -> tuple[bool, bool]:
        """Whether changes are sent, and whether a component is averaged over its senders alone."""
        return True, True

    @property
    def is_weighed(self) -> bool:
        """Whether the scheduler asks what pieces weigh."""
        return self.config.control in ("tsfa", "round")

    # The hooks.

    def start(self) -> State:
        """Return the shared adapter and the scheduler's queues."""
        return {**super().start(), "schedule": self.scheduler.start()}

    def grant(self, state: State, links: Links, clients: Ints) -> Plan:
        """Grant bits and bandwidth by what the pieces weighed last."""
        _, _, seconds = self.needs(state, links.round, clients)
        return self.scheduler.plan(state["schedule"], links, clients, np.asarray(seconds))

    def upload_bits(self, clients: Ints) -> tuple[ArrayLike, ArrayLike]:
        """Return the sizes of the largest and of the smallest upload."""
        del clients
        return self.scheduler.pieces.whole, self.scheduler.pieces.smallest

    def phases(self, client: Client) -> list[Phase]:
        """Return local training with the pull towards orthogonality."""
        config, objective = self.config, supervised
        if config.orthogonality > 0.0:
            objective = Orthogonal(config.orthogonality, config.penalty, config.train_a)
        trained = tuple(n for n in client.adapter if config.train_a or ".lora_A." not in n)
        return [Phase(client.data, objective, self.setup.train.local_steps, trained)]

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Combine what arrived, and go on with the queues."""
        uploads = [
            Upload(d.client, d.seconds, d.grant.rate_bps, d.payload and d.payload.scores)
            for d in deliveries
            if d.grant is not None and d.seconds > 0.0  # none: it did not hear the broadcast
        ]
        after = self.scheduler.after(state["schedule"], uploads)
        return super().aggregate({**state, "schedule": after}, deliveries)

    def combine(self, old: Adapter, sent: Sequence[Sent]) -> Adapter:
        """Average each component over those who sent it."""
        is_change, over_senders = self.rule
        rule = self.components.added if is_change else self.components.replaced
        return self.components.tensors(rule(self.components.slices(old), sent, over_senders))

    def products(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, Factors]:
        """Average each component's product by the weights of its rows and columns."""
        return self.components.mean_products(old, sent, *self.rule)

    def notes(self, old: Adapter, sent: Sequence[Sent]) -> dict[str, float]:
        """Return the covariance that averaging A and B apart leaves out."""
        return self.components.covariance(old, sent, self.rule[0])

    @property
    def repairs(self) -> bool:
        """Whether the residual is added to frozen weights."""
        return bool(self.config.residual)

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client; a frozen A has no need to."""
        return [*self.config.private, *([] if self.config.train_a else ["*.lora_A.*"])]

    # What they share.

    def with_debt(self, client: Client) -> Adapter:
        """Return what was learned, with the decayed changes that were not sent before."""
        owed = client.state.get("owed")
        if owed is None:
            return client.adapter
        now = self.components.slices(client.adapter)
        with_debt = {m: rows + self.config.error_feedback * owed[m] for m, rows in now.items()}
        return {**client.adapter, **self.components.tensors(with_debt)}

    def owe(self, client: Client, unsent: dict[str, Tensor]) -> None:
        """Keep what was not sent of each matrix, [rank, width], where anything of it is owed."""
        if self.config.error_feedback > 0.0:
            client.state["owed"] = unsent


def shares(errors: Tensor) -> Tensor:
    """Return what pieces weigh as parts of one, as it travels."""
    return (errors / errors.sum().clamp(min=1e-30)).float()
