"""PWFF+: what is learned together is a function of the preference, one straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from airtune.errors import UserError, nearest
from airtune.learning.alignment.two_losses import Rule
from airtune.methods.aligning import Aligning
from airtune.methods.alignment_options import AligningConfig
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client, Delivery, Setup, State
from airtune.wire import Dense, Payload, Shapes, WireError, encode

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.radio.grant import Grant
    from airtune.scheduling.plan import Plan

_SLOPE, _PREFERENCE, _MIDDLE = "slope/", "preference", 0.5


class PwffPlusConfig(AligningConfig):
    """Options of PWFF+: those of alignment, and how fast its line may turn."""

    weights: Rule = Field("split", description=AligningConfig.model_fields["weights"].description)
    turning: list[str] = Field(
        ["*.lora_*"],
        description="patterns of tensors that have a slope; all others are one for all",
    )
    ridge: NonNegativeFloat = Field(
        0.02,
        description="holds the slope back where preferences hardly differ or few clients arrive: "
        "beside their variance, which is 1/12 where they are even between 0 and 1",
    )


class PwffPlus(Aligning):
    """Every preference has its model, ``theta(a) = M + (a - 1/2) D``, and all clients learn both.

    A client starts from theta(a_n), aligns it and sends it with a_n. From the updates u_n that
    arrive the server takes the line of least squares,
    ``min sum_n p_n ||u_n - dM - (a_n - 1/2) dD||^2 + ridge ||dD||^2``, and adds it to M and D.
    Only LoRA turns by default, and it learns for the client's own weights; bottlenecks have no
    slope and learn for ``common_weight`` (``weights: split``). Nothing stays private.

    Where a client aligns private tensors to its own weights it has its own few answers to learn
    from, and where all share one model preferences cancel; here a client learns from all, most
    from those who want the like. With D held at zero (a large ridge) it is averaging.

    Ours; two rewards with weights of clients are of arXiv 2404.13238.
    """

    Config: ClassVar[type[MethodConfig]] = PwffPlusConfig
    why_not_summed = "its server draws a line through what clients of unlike preferences sent"
    uplink_payload: ClassVar[type | tuple[type, ...]] = Dense

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for patterns under which nothing turns."""
        super().__init__(config, setup)
        if config.change_bits is not None:
            raise UserError(
                f"method.change_bits: {config.name} sends its tensors whole; leave it out, and use "
                "value_type for shorter numbers."
            )
        shared = self.shared(setup.initial)
        if not config.turning:
            raise UserError("method.turning: nothing turns; name patterns, or use pwff.")
        for pattern in config.turning:
            if not any(fnmatchcase(name, pattern) for name in shared):
                raise UserError(
                    f"method.turning: no shared tensor has a name like '{pattern}'; "
                    f"{nearest(pattern, shared)}"
                )

    @property
    def personalised(self) -> Sequence[str]:
        """Patterns of tensors that learn for the client's own weights: those that turn."""
        return [*self.private, *self.config.turning]

    def start(self) -> State:
        """Return the server's state: M as the adapter begins, D zero."""
        state = super().start()
        turning = self._turns(state["shared"])
        slope = {name: torch.zeros_like(tensor) for name, tensor in turning.items()}
        return {**state, "slope": slope}

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return M and D."""
        sent = super().broadcast(state, plan)
        assert isinstance(sent, Dense)
        slope = {_SLOPE + name: tensor for name, tensor in state["slope"].items()}
        return Dense({**sent.tensors, **slope}, sent.value_type)

    def receive(self, client: Client, payload: Any) -> None:
        """Start from the client's own place on the line."""
        rest = {n: t for n, t in payload.tensors.items() if not n.startswith(_SLOPE)}
        own = {**rest, **self.came(client)}
        super().receive(client, Dense(own, payload.value_type))

    def came(self, client: Client) -> Adapter:
        """Return what is shared as the client starts from it: at its own place on the line."""
        a = float(self.preferences[client.index])
        heard = client.heard.tensors
        shared = {name: heard[name] for name in self.shared(client.adapter)}
        return {**shared, **on_line(heard, a)}

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what was learned, and for which preference."""
        sent = super().upload(client, grant)
        assert isinstance(sent, Dense)
        a = torch.tensor([float(self.preferences[client.index])])
        return Dense({**sent.tensors, _PREFERENCE: a}, sent.value_type)

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse a preference outside [0, 1]: it would have any say in the slope."""
        payload = super().accept(state, payload)
        if not 0.0 <= float(payload.tensors.get(_PREFERENCE, torch.tensor(-1.0))) <= 1.0:
            raise WireError("it says no preference in [0, 1].")
        return payload

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Return the state with the line through what arrived added to it."""
        mean, slope = state["shared"], state["slope"]
        moved = super().aggregate(state, deliveries)  # but for what is put in its place below
        arrived = [d for d in deliveries if d.payload is not None]
        if not arrived:
            return moved
        share = torch.tensor([d.weight for d in arrived], dtype=torch.float64)
        share = share / share.sum()
        place = torch.tensor([float(d.payload.tensors[_PREFERENCE]) - _MIDDLE for d in arrived])
        place = place.double()
        gram = torch.tensor(
            [[1.0, float(share @ place)], [float(share @ place), float(share @ place.square())]],
            dtype=torch.float64,
        )
        gram[1, 1] += self.config.ridge + 1e-12
        # How much each update counts for dM and dD, [2, arrived].
        counts = torch.linalg.solve(gram, torch.stack([share, share * place]))
        new_mean = {name: moved["shared"][name] for name in mean}  # averaged where nothing turns
        new_slope = dict(slope)
        for name, before in slope.items():
            updates = torch.stack(
                [
                    d.payload.tensors[name] - (mean[name] + float(c) * before)
                    for d, c in zip(arrived, place, strict=True)
                ]
            ).double()
            d_mean, d_slope = torch.tensordot(counts, updates, dims=1)
            new_mean[name] = (mean[name] + d_mean).to(before.dtype)
            new_slope[name] = (before + d_slope).to(before.dtype)
        return {**moved, "shared": new_mean, "slope": new_slope}

    def uplink_shapes(self) -> Shapes:
        """Return the shapes of an adapter and of a preference."""
        return {**super().uplink_shapes(), _PREFERENCE: (1,)}

    def downlink_shapes(self) -> Shapes:
        """Return the shapes of M, D and learned rewards."""
        turning = self._turns(self.shared(self.setup.initial))
        slope = {_SLOPE + name: tuple(tensor.shape) for name, tensor in turning.items()}
        return {**super().downlink_shapes(), **slope}

    def _turns(self, adapter: Adapter) -> Adapter:
        """Return the part of an adapter that has a slope."""
        patterns = self.config.turning
        return {n: t for n, t in adapter.items() if any(fnmatchcase(n, p) for p in patterns)}

    @cached_property
    def dense_bits(self) -> int:
        """Size of an upload."""
        sent = {**self.shared(self.setup.initial), _PREFERENCE: torch.zeros(1)}
        return 8 * len(encode(Dense(sent, self.config.value_type)))


def on_line(tensors: Mapping[str, Tensor], preference: float) -> Adapter:
    """Return ``M + (a - 1/2) D`` of the tensors M by name and D behind ``slope/``."""
    return {
        name.removeprefix(_SLOPE): tensors[name.removeprefix(_SLOPE)]
        + (preference - _MIDDLE) * tensors[name]
        for name in tensors
        if name.startswith(_SLOPE)
    }
