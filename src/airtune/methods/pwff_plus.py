"""PWFF+: two models are learned together, one for each reward; a client mixes them by its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from airtune.methods.aligning import Aligning, AligningConfig, Weight
from airtune.methods.method import Client, MethodConfig, State
from airtune.wire import Dense, Payload, Shapes, encode

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.radio.grant import Grant

BANKS = ("safe", "helpful")  # adapters, by the weight of helpful that each learns for


class PwffPlusConfig(AligningConfig):
    """Options of PWFF+: those of alignment."""

    learned_for: tuple[Weight, Weight] = Field(
        (0.25, 0.75),
        description="weights of helpful that the two adapters learn for; a client whose own lies "
        "between or beyond mixes them in proportion",
    )

    @field_validator("learned_for")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the first weight is below the second, such as [0.25, 0.75].")
        return value


class PwffPlus(Aligning):
    """``theta_n = theta_low + (a_n - low) / (high - low) (theta_high - theta_low)``.

    Nothing is learned for one client alone. The server keeps two adapters and sends both; in a
    round a client trains one of them, by turns, for that one's weight ``low`` or ``high`` of
    helpful answers, and sends it: as many bits up as one adapter has, twice as many down. Where
    every client aligns for its own weights, few answers teach each of them; so all answers teach
    both adapters, and preferences meet at last, in the weights.

    Ours. Mixing the weights of models that were tuned from one start for single rewards is that of
    Rame et al. 2023 (2306.04488, rewarded soups); two rewards with weights of clients are of arXiv
    2404.13238. With low 0 and high 1 the ends are learned for and mixtures interpolate; nearer
    together, mixtures are learned for and the ends extrapolate.
    """

    Config: ClassVar[type[MethodConfig]] = PwffPlusConfig

    def start(self) -> State:
        """Return the server's state: both adapters."""
        state = super().start()
        shared = {_in(bank, name): t for bank in BANKS for name, t in state["shared"].items()}
        return {**state, "shared": shared}

    def receive(self, client: Client, payload: Any) -> None:
        """Take the adapter whose turn it is."""
        rest = {name: t for name, t in payload.tensors.items() if not _is_banked(name)}
        super().receive(client, Dense({**self.came(client), **rest}, payload.value_type))

    def came(self, client: Client) -> Adapter:
        """Return the adapter that a client trains, as it came."""
        return _of(self._turn(client), client.heard.tensors)

    def weight(self, client: Client) -> float:
        """Return the weight of the reward whose turn it is, all or nothing."""
        return float(self.config.learned_for[BANKS.index(self._turn(client))])

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what was learned, under the name of its reward."""
        sent = super().upload(client, grant)
        assert isinstance(sent, Dense)
        bank = self._turn(client)
        return Dense({_in(bank, name): t for name, t in sent.tensors.items()}, sent.value_type)

    def personal(self, client: Client) -> Adapter:
        """Return the client's own mixture of both."""
        low, high = self.config.learned_for
        share = (float(self.preferences[client.index]) - low) / (high - low)
        return {**super().personal(client), **mixture(client.heard.tensors, share)}

    def model(self, state: State) -> Adapter:
        """Return the server's model: both in equal parts."""
        return {**self.setup.initial, **mixture(state["shared"], 0.5)}

    def uplink_shapes(self) -> Shapes:
        """Return the shapes of both adapters, of which a client sends one."""
        own = super().uplink_shapes()
        return {_in(bank, name): shape for bank in BANKS for name, shape in own.items()}

    @cached_property
    def dense_bits(self) -> int:
        """Size of one adapter as it goes up."""
        largest = max(BANKS, key=len)
        named = {_in(largest, n): t for n, t in self.shared(self.setup.initial).items()}
        return 8 * len(encode(Dense(named, self.config.value_type)))

    def _turn(self, client: Client) -> str:
        """Return which adapter a client trains in a round: half of them each, then the other."""
        return BANKS[(client.index + client.round) % 2]


def mixture(banks: Mapping[str, Tensor], share: float) -> Adapter:
    """Return the safe adapter, moved by ``share`` of the way to the helpful one, or beyond."""
    safe, helpful = (_of(bank, banks) for bank in BANKS)
    return {name: safe[name] + share * (helpful[name] - safe[name]) for name in safe}


def _in(bank: str, name: str) -> str:
    return f"{bank}/{name}"


def _is_banked(name: str) -> bool:
    return name.startswith(tuple(_in(bank, "") for bank in BANKS))


def _of(bank: str, banks: Mapping[str, Tensor]) -> Adapter:
    prefix = _in(bank, "")
    return {n.removeprefix(prefix): t for n, t in banks.items() if n.startswith(prefix)}
