"""Rewards that the server learned travel once: down to each client that lacks them, and charged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from airtune.learning.alignment.drawing import under
from airtune.learning.alignment.learned_rewards import NAMES, LearnedRewardsConfig, learn, shapes
from airtune.learning.alignment.reward_head import RewardHead
from airtune.methods.fedprox import FedProx
from airtune.methods.views import Client, Delivery, State
from airtune.scheduling.plan import Plan
from airtune.wire import Dense, Payload, Shapes, decode, encode

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter

_JUDGE = "judge."  # beginning of the names of learned rewards in a broadcast


class SendsJudges(FedProx):
    """Averaging beside which learned rewards go down, with any broadcast that meets a newcomer.

    A client has them once its upload arrived: the server cannot know it otherwise.
    """

    # What arrived is averaged, and who is in a masked sum is known.
    why_not_summed: ClassVar[str | None] = None

    def start(self) -> State:
        """Return the server's state; learned rewards are in it, and who has them."""
        state = super().start()
        if isinstance(self.config.rewards, LearnedRewardsConfig):
            learned = learn(self.config.rewards, self.setup.server.model.backbone, self.setup.seed)
            # As clients read them, so that all judge alike.
            sent = encode(Dense(learned.tensors, self.config.value_type))
            read = decode(sent, shapes(self.setup.server.model.backbone))
            assert isinstance(read, Dense)
            state["judges"] = dict(read.tensors)
            state["accuracy"] = {n: dict(own._asdict()) for n, own in learned.accuracy.items()}
            state["has_judges"] = torch.zeros(len(self.setup.examples), dtype=torch.bool)
        return state

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return what is shared, with the learned rewards where somebody lacks them."""
        sent = super().broadcast(state, plan)
        if "judges" not in state or bool(state["has_judges"][list(plan.grants)].all()):
            return sent
        assert isinstance(sent, Dense)
        judges = {_JUDGE + name: tensor for name, tensor in state["judges"].items()}
        return Dense({**sent.tensors, **judges}, sent.value_type)

    def receive(self, client: Client, payload: Any) -> None:
        """Keep the learned rewards, if there are any; what is shared goes the usual way."""
        judges = under(_JUDGE, payload.tensors)
        if judges:
            client.state["told"] = judges
        own = {n: t for n, t in payload.tensors.items() if not n.startswith(_JUDGE)}
        super().receive(client, Dense(own, payload.value_type))

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Return the state made of what arrived; who answered has the rewards."""
        state = super().aggregate(state, deliveries)
        if "judges" in state:
            has = state["has_judges"].clone()
            has[[d.client for d in deliveries if d.payload is not None]] = True
            state = {**state, "has_judges": has}
        return state

    def files(self, state: State) -> dict[str, bytes]:
        """Return the learned rewards as files that ``rewards.helpful.file`` and the other read."""
        backbone = self.setup.server.model.backbone
        return {
            f"rewards/{name}.safetensors": RewardHead.told(name, state["judges"]).to_bytes(backbone)
            for name in (NAMES if "judges" in state else ())
        }

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of what is shared, and of learned rewards."""
        own = dict(super().downlink_shapes())
        if isinstance(self.config.rewards, LearnedRewardsConfig):
            backbone = self.setup.server.model.backbone
            own |= {_JUDGE + name: shape for name, shape in shapes(backbone).items()}
        return own

    def told(self, client: Client) -> Adapter:
        """Return what the server sent to judge with; nothing for what a program computes."""
        told: Adapter = client.state.get("told", {})
        return told
