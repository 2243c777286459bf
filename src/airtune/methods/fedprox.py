"""FedProx: federated averaging with a pull of each client towards the broadcast."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field, NonNegativeFloat

from airtune.learning.phase import Phase, supervised
from airtune.learning.proximal import Proximal, anchors
from airtune.methods.method import MethodConfig
from airtune.methods.rounding import Rounding, RoundingConfig
from airtune.methods.views import Client


class FedProxConfig(RoundingConfig):
    """Options of FedProx."""

    proximal: NonNegativeFloat = Field(
        1e-2, description="mu, weight of the squared distance of what is shared to the broadcast"
    )


class FedProx(Rounding):
    """Clients minimise ``F + (mu / 2) ||phi - phi_g||^2`` over what they share, phi.

    Source: Li et al. 2020, FedProx (1812.06127), here of the adapter.
    """

    Config: ClassVar[type[MethodConfig]] = FedProxConfig

    def phases(self, client: Client) -> list[Phase]:
        """Return local training of everything, held to what came down."""
        return self.part(client, self.setup.train.local_steps)

    def part(self, client: Client, steps: int, trains: tuple[str, ...] = ("*",)) -> list[Phase]:
        """Return training of the tensors that ``trains`` names, held to what came down."""
        return [self.held(client, Phase(client.data.first, supervised, steps, trains))]

    def held(self, client: Client, phase: Phase) -> Phase:
        """Return a phase in which what is shared is pulled to the broadcast."""
        came = self.came(client)
        if self.config.proximal == 0.0 or not came:
            return phase
        objective = Proximal(self.config.proximal, phase.objective)
        held = anchors(came, came)
        return replace(phase, objective=objective, constants={**phase.constants, **held})
