"""PFTT+: one model is learned together, and each client answers with its own mix of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from airtune.errors import UserError
from airtune.learning.config import Fraction
from airtune.learning.label_bias import LABEL_BIAS, label_bias
from airtune.methods.method import MethodConfig
from airtune.methods.pftt import Pftt, PfttConfig
from airtune.methods.views import Client, Setup

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.radio.grant import Grant
    from airtune.wire import Payload


class PfttPlusConfig(PfttConfig):
    """Options of PFTT+: those of PFTT, whose LoRA is shared here, and what is the client's own."""

    private: list[str] = Field(
        [], description="theta, patterns of tensors that never leave a client"
    )
    own_share: Fraction = Field(
        0.3,
        description="lambda, share of the texts a client expects to have its own mix of classes; "
        "the others are of any class",
    )
    averaged: PositiveInt = Field(
        2,
        description="rounds whose broadcasts make the mean that a client answers with",
    )


class PfttPlus(Pftt):
    """PFTT whose clients share LoRA too, and whose own part is a bias on the classes.

    ``logits_n(x) = logits(x; phi_g) + log(C (lambda p_n + (1 - lambda) / C))`` with p_n the mix of
    the client's C classes, estimated from its own training texts. A text that the shared model is
    sure of keeps its class; where it wavers, the client's usual classes win. Clients whose mixes
    are even have next to no bias. It is made when it is needed, neither trains nor travels, and an
    export has it in the head.

    phi_g is the mean of what the client heard in the last ``averaged`` rounds: it wavers
    less than the last one alone (stochastic weight averaging, Izmailov et al. 2018), and costs no
    message.

    Ours. Defaults were chosen on Banking77 at Dirichlet 0.1, seed 0.
    """

    Config: ClassVar[type[MethodConfig]] = PfttPlusConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where there are no classes, or a head without a bias."""
        model = setup.server.model
        if model.task != "classification":
            raise UserError(
                f"method.name: {config.name} gives clients their own mix of classes, and there are "
                "none; set data.label, or use pftt."
            )
        if model.head_bias is None and not model.backbone.frozen_head:
            raise UserError(
                f"method.name: {config.name} puts a client's mix of classes into the bias of the "
                "head, and this model's head has none; use pftt, or another model."
            )
        super().__init__(config, setup)

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what is shared, and remember what was heard."""
        heard = self._recent(client)
        if self.config.averaged > 1:
            client.state["heard"] = heard | {str(client.round): self.shared(client.heard.tensors)}
        return super().upload(client, grant)

    def personal(self, client: Client) -> Adapter:
        """Return the mean of what was heard, with the bias of the client's own classes."""
        own = super().personal(client)
        heard = [*self._recent(client).values(), self.shared(own)]
        mean = {name: sum(each[name] for each in heard) / len(heard) for name in heard[0]}
        labels = client.data.corpus.targets[client.data.rows]
        counts = np.bincount(labels, minlength=client.learner.model.width)
        return {**own, **mean, LABEL_BIAS: label_bias(counts, self.config.own_share)}

    def _recent(self, client: Client) -> dict[str, Adapter]:
        """Return what the client heard in the last rounds but one, by round."""
        oldest = client.round - self.config.averaged + 1
        heard: dict[str, Adapter] = client.state.get("heard", {})
        return {round: each for round, each in heard.items() if int(round) > oldest}
