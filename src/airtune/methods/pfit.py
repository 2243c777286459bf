"""PFIT: a policy is tuned by each client's own mixture of two rewards, and averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat

from airtune.methods.aligning import Aligning
from airtune.methods.alignment_options import AligningConfig, Weight
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client

if TYPE_CHECKING:
    from airtune.radio.grant import Grant
    from airtune.wire import Payload


class PfitConfig(AligningConfig):
    """Options of PFIT; symbols as in the specification."""

    proximal: NonNegativeFloat = Field(
        1e-2,
        description="twice lambda: mu / 2 weighs the squared distance of what is tuned to the "
        "broadcast",
    )
    personal: Literal["restart", "copy"] = Field(
        "restart",
        description="a round starts from the broadcast; or from the client's own copy, moved "
        "towards it",
    )
    mixing: Weight = Field(0.3, description="rho_mix, how far a copy moves to the broadcast")


class Pfit(Aligning):
    """Clients tune omega, the last blocks or LoRA in them, by policy optimisation.

    ``reward_n = a_n R_help + (1 - a_n) R_safe``, with a penalty on each token's KL to the reference
    and one on ``||omega_n - omega_g||^2``; the server averages omega. With ``personal: copy``
    ``omega_n <- omega_n + rho (omega_g - omega_n)`` opens a round, and clients' models differ; with
    ``restart`` all have the broadcast, and preferences meet in it.

    Source: arXiv 2404.13238. FOUND: two reward models with weights of the client, a distance
    penalty, training of the last layers, PPO. DERIVED: the penalty is in the loss, as in the reward
    it has no gradient; GRPO by default; copies.
    """

    Config: ClassVar[type[MethodConfig]] = PfitConfig

    def receive(self, client: Client, payload: Any) -> None:
        """Take the broadcast, or move the client's own copy towards it."""
        super().receive(client, payload)
        own = client.state.get("own")
        if own is not None:
            rho = self.config.mixing
            moved = {name: own[name] + rho * (client.adapter[name] - own[name]) for name in own}
            client.adapter = {**client.adapter, **moved}

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what is shared, and keep the client's own copy."""
        if self.config.personal == "copy":
            client.state["own"] = self.shared(client.adapter)
        return super().upload(client, grant)
