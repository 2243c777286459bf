"""PWFF+: two models are learned together, one for each reward; a client mixes them by its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from airtune.methods.aligning import Aligning, AligningConfig
from airtune.methods.method import Client, MethodConfig, State
from airtune.wire import Dense, Payload, Shapes, encode

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.radio.grant import Grant

BANKS = {"helpful": 1.0, "safe": 0.0}  # adapters, and the weight of helpful that each learns for


class PwffPlusConfig(AligningConfig):
    """Options of PWFF+: those of alignment."""


class PwffPlus(Aligning):
    """``theta_n = a_n theta_help + (1 - a_n) theta_safe``: nothing is learned for one client alone.

    The server keeps an adapter for each reward and sends both. In a round a client trains one of
    them, for that reward alone, by turns, and sends it: as many bits up as one adapter has, twice
    as many down. Where every client aligns for its own weights, few answers teach each of them; so
    all answers teach both, and preferences meet at last, in the weights.

    Ours. Mixing the weights of models that were tuned from one start for single rewards is that of
    Rame et al. 2023 (2306.04488, rewarded soups); two rewards with weights of clients are of arXiv
    2404.13238.
    """

    Config: ClassVar[type[MethodConfig]] = PwffPlusConfig

    def start(self) -> State:
        """Return the server's state: both adapters."""
        state = super().start()
        shared = {_in(bank, name): t for bank in BANKS for name, t in state["shared"].items()}
        return {**state, "shared": shared}

    def receive(self, client: Client, payload: Any) -> None:
        """Take the adapter whose turn it is."""
        super().receive(client, Dense(self.came(client), payload.value_type))

    def came(self, client: Client) -> Adapter:
        """Return the adapter that a client trains, as it came."""
        return _of(self._turn(client), client.heard.tensors)

    def weight(self, client: Client) -> float:
        """Return the weight of the reward whose turn it is, all or nothing."""
        return BANKS[self._turn(client)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what was learned, under the name of its reward."""
        sent = super().upload(client, grant)
        assert isinstance(sent, Dense)
        bank = self._turn(client)
        return Dense({_in(bank, name): t for name, t in sent.tensors.items()}, sent.value_type)

    def personal(self, client: Client) -> Adapter:
        """Return the client's own mixture of both."""
        a = float(self.preferences[client.index])
        return {**super().personal(client), **mixture(client.heard.tensors, a)}

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
        return list(BANKS)[(client.index + client.round) % 2]


def mixture(banks: Mapping[str, Tensor], weight: float) -> Adapter:
    """Return ``weight`` of the helpful and the rest of the safe adapter."""
    helpful, safe = _of("helpful", banks), _of("safe", banks)
    return {name: weight * helpful[name] + (1.0 - weight) * safe[name] for name in helpful}


def _in(bank: str, name: str) -> str:
    return f"{bank}/{name}"


def _of(bank: str, banks: Mapping[str, Tensor]) -> Adapter:
    prefix = _in(bank, "")
    return {n.removeprefix(prefix): t for n, t in banks.items() if n.startswith(prefix)}
