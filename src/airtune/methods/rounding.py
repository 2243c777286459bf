"""Dense uploads of few bits a number: the change since the broadcast, rounded, the rest owed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from airtune.methods.method import Method, MethodConfig, SharingConfig
from airtune.methods.views import Client, State
from airtune.wire import Dense, Payload, RoundedChanges, decode, encode

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.radio.grant import Grant


class RoundingConfig(SharingConfig):
    """Options of methods whose clients may round what they send."""

    change_bits: Literal[2, 3, 4, 5, 6, 8] | None = Field(
        None,
        description="upload the change since the broadcast with so many bits a number; what "
        "rounding leaves is added to the next one. Default: the tensors, as value_type",
    )


class Rounding(Method):
    """Averaging whose uploads may be rounded changes, with error feedback.

    ``sent = Q(theta_n - theta_g + e_n)``, ``e_n <- theta_n - theta_g + e_n - sent``, and the server
    reads ``theta_g + sent``. A client does not hear whether its upload arrived: what is lost on
    the air is not owed. Error feedback: Seide et al. 2014; the grid, one scale for each tensor, is
    ours.
    """

    Config: ClassVar[type[MethodConfig]] = RoundingConfig

    uplink_payload: ClassVar[type | tuple[type, ...]] = (Dense, RoundedChanges)

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what is shared, or its rounded change."""
        bits = self.config.change_bits
        whole = super().upload(client, grant)
        if bits is None or whole is None:
            return whole
        owed: Adapter = client.state.get("owed", {})
        came = self.came(client)
        change = {
            name: tensor - came[name] + owed.get(name, torch.zeros(()))
            for name, tensor in self.shared(client.adapter).items()
        }
        rounded = RoundedChanges(change, bits)
        # As the server will read it.
        read = decode(encode(rounded), {name: tuple(t.shape) for name, t in change.items()})
        assert isinstance(read, RoundedChanges)
        client.state["owed"] = {name: change[name] - read.tensors[name] for name in change}
        return rounded

    def accept(self, state: State, payload: Any) -> Any:
        """Return the tensors that a rounded change makes of the broadcast."""
        if not isinstance(payload, RoundedChanges):
            return super().accept(state, payload)
        tensors = {name: state["shared"][name] + t for name, t in payload.tensors.items()}
        return Dense(tensors, self.config.value_type)

    def came(self, client: Client) -> Adapter:
        """Return what is shared as it came, before the client made its own of it."""
        return {name: client.heard.tensors[name] for name in self.shared(client.adapter)}

    @cached_property
    def dense_bits(self) -> int:
        """Size of an upload."""
        if self.config.change_bits is None:
            return 8 * len(encode(Dense(self.shared(self.setup.initial), self.config.value_type)))
        shared = {n: torch.zeros_like(t) for n, t in self.shared(self.setup.initial).items()}
        return 8 * len(encode(RoundedChanges(shared, self.config.change_bits)))
