"""PFTT: bottleneck adapters are shared, LoRA is each client's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from airtune.errors import UserError
from airtune.learning.low_rank import factor_names, factors, matrices
from airtune.learning.phase import Phase
from airtune.methods.fedprox import FedProx, FedProxConfig
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client, Setup

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter

_SMALLEST = 2


class PfttConfig(FedProxConfig):
    """Options of PFTT; symbols as in the specification."""

    private: list[str] = Field(
        ["*.lora_*"],
        description="theta, patterns of tensors that never leave a client; add classifier.* for "
        "a private head",
    )
    proximal: NonNegativeFloat = Field(
        0.0, description="mu, weight of the squared distance of what is shared to the broadcast"
    )
    order: Literal["joint", "alternate"] = Field(
        "joint", description="train everything at once, or the private half of the steps first"
    )
    ranks: Literal["equal", "examples"] | list[PositiveInt] = Field(
        "equal",
        description="of a client's own LoRA, adapter.rank at most: all alike; by its examples; or "
        "a list (by memory, say) of which client i has number i mod its length",
    )
    usual_rank: PositiveInt = Field(
        8, description="r_0, with ranks: examples: of a client with as many examples as the mean"
    )

    @field_validator("ranks")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("the list has no rank; name one at least, or say equal.")
        return value


class Pftt(FedProx):
    """Personalised federated task tuning: ``phi`` is averaged, ``theta_n`` stays at client n.

    Clients train ``CE(phi, theta_n) + (mu / 2) ||phi - phi_g||^2``; the server averages phi by
    examples. With adapter.kind lora+bottleneck phi are the bottleneck adapters and the head, theta
    the LoRA.

    Source: arXiv 2404.13238. FOUND: adapters are averaged, private LoRA is not, each client chooses
    its own LoRA size by data or compute. DERIVED: the pull, the order of training, the rule
    ``r_n = 2^round(log2(r_0 |D_n| / mean |D|))`` between 2 and adapter.rank; the scale alpha /
    adapter.rank is one for all ranks; a shared head unless ``private`` names it.
    """

    Config: ClassVar[type[MethodConfig]] = PfttConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where nothing is shared, or ranks are chosen for LoRA that travels."""
        super().__init__(config, setup)
        alone = "*" in config.private
        if not alone and set(self.shared(setup.initial)) <= set(setup.server.model.head_names):
            raise UserError(
                f"method.private: all adapters are private, so {config.name} has none to share; "
                "use adapter.kind lora+bottleneck, or private ['*'], under which clients learn "
                "alone."
            )
        if config.order == "alternate" and all(map(self.is_shared, setup.initial)):
            raise UserError(
                "method.order: alternate trains the private tensors first, and none is private; "
                "train jointly."
            )
        if config.order == "alternate" and setup.train.local_steps < 2:
            raise UserError(
                "method.order: alternate halves train.local_steps, and 1 has no half; give 2 or "
                "more, or train jointly."
            )
        self._ranks = self._chosen_ranks()

    def receive(self, client: Client, payload: Any) -> None:
        """Put what is shared beside what is the client's own, of its own rank."""
        super().receive(client, payload)
        if self._ranks is not None and "private" not in client.state:
            client.adapter = narrowed(client.adapter, int(self._ranks[client.index]))

    def phases(self, client: Client) -> list[Phase]:
        """Return joint training, or the client's own tensors first and then what is shared."""
        steps = self.setup.train.local_steps
        if self.config.order == "joint":
            return self.part(client, steps)
        own = tuple(name for name in client.adapter if not self.is_shared(name))
        shared = tuple(self.shared(client.adapter))
        first, second = steps // 2, -(-steps // 2)
        return [*self.part(client, first, own), *self.part(client, second, shared)]

    def _chosen_ranks(self) -> np.ndarray | None:
        """Return each client's rank, [clients]; None where all have the adapter's."""
        ranks, largest = self.config.ranks, self._rank()
        examples = self.setup.examples
        if ranks == "equal":
            return None
        if ranks == "examples":
            doubled = np.log2(self.config.usual_rank * examples / examples.mean())
            return np.clip(np.exp2(np.round(doubled)), min(_SMALLEST, largest), largest).astype(int)
        if max(ranks) > largest:
            raise UserError(
                f"method.ranks: {max(ranks)} is above adapter.rank, {largest}; raise that, or give "
                "smaller ones."
            )
        return np.resize(ranks, len(examples))

    def _rank(self) -> int:
        """Return the rank of the adapter's LoRA, which is private wherever ranks are chosen."""
        initial = self.setup.initial
        own = matrices(initial)
        travels = [n for m in own for n in factor_names(m) if self.is_shared(n)]
        if self.config.ranks != "equal" and (travels or not own):
            found = f"'{travels[0]}' is shared" if travels else "there is no LoRA"
            raise UserError(
                f"method.ranks: clients choose ranks of private LoRA, and {found}; keep *.lora_* "
                "in method.private and use adapter.kind lora+bottleneck, or leave ranks out."
            )
        return factors(initial, own[0]).rank if own else 0


def narrowed(adapter: Adapter, rank: int) -> Adapter:
    """Return the adapter with the first ``rank`` components of each matrix."""
    found = dict(adapter)
    for matrix in matrices(adapter):
        (a, b), product = factor_names(matrix), factors(adapter, matrix)
        found[a], found[b] = product.a[:rank].clone(), product.b[:, :rank].clone()
    return found
