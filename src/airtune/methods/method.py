"""The seven hooks of a federated method; left alone they are federated averaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from airtune.config import Config
from airtune.errors import UserError, nearest
from airtune.learning.data.examples import Examples
from airtune.learning.optimiser import Moments
from airtune.learning.phase import Phase, supervised
from airtune.learning.shifts import without_shifts
from airtune.methods.averaging import weighted_mean
from airtune.methods.views import Client, Delivery, Setup, State, Work
from airtune.radio.cell import Links
from airtune.radio.grant import Grant
from airtune.radio.units import Ints
from airtune.scheduling.allocate import allocate
from airtune.scheduling.plan import Plan
from airtune.wire import Dense, Payload, Shapes, ValueType, WireError, encode

if TYPE_CHECKING:  # peft and transformers take seconds to import, and options need neither
    from airtune.learning.adapter import Adapter
    from airtune.learning.learner import Assignment, Learner

Needed = tuple[ArrayLike, ArrayLike, ArrayLike]
_LARGEST = 1e6  # of a weight or its change: in float32 products of two, summed, stay finite


class MethodConfig(Config):
    """Options that every method has; a method's own class adds its symbols."""

    name: str


class SharingConfig(MethodConfig):
    """Options of methods whose clients send tensors of their adapters."""

    value_type: ValueType = Field("float32", description="how a number travels, both ways")
    private: list[str] = Field(
        [], description="patterns of tensors that never leave a client, such as classifier.*"
    )


class Method:
    """Federated averaging of the shared adapter; a system overrides only what it changes.

    ``theta <- sum_n p_n theta_n / sum_n p_n`` over the clients whose upload arrived, p_n
    proportional to client n's training examples. For LoRA both factors are averaged separately, so
    the mean of products is not the product of means (FedIT; specs: standard baseline).
    """

    Config: ClassVar[type[MethodConfig]] = SharingConfig
    # Whether public texts are needed; and whether models may differ, as adapters do not travel.
    needs_public: ClassVar[bool] = False
    own_models: ClassVar[bool] = False
    # Whether examples may be pairs of a chosen and a rejected answer.
    learns_preferences: ClassVar[bool] = False
    # Whether it answers prompts itself: then data may have prompts alone, and must have prompts.
    answers_prompts: ClassVar[bool] = False
    # Whether it measures models itself, by judge: those of clients without test texts, too.
    judges: ClassVar[bool] = False
    # Whether messages are as long as what was learned makes them, so that a plan cannot know.
    sizes_vary: ClassVar[bool] = False
    why_not_summed: ClassVar[str | None] = None  # why aggregate needs more than a sum of uploads
    # What upload returns and aggregate gets; anything else that arrives is refused on arrival.
    uplink_payload: ClassVar[type | tuple[type, ...]] = Dense

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for a private pattern that names no tensor, and for no public texts."""
        self.config, self.setup = config, setup
        if self.needs_public and len(setup.public) == 0:
            raise UserError(
                f"data.public: {config.name} distils on public texts, and there are none; name a "
                "file, or raise data.public_rows."
            )
        for pattern in getattr(config, "private", ()):
            if not any(fnmatchcase(name, pattern) for name in setup.initial):
                raise UserError(
                    f"method.private: '{pattern}' names no trained tensor; "
                    f"{nearest(pattern, setup.initial)}"
                )

    # The hooks, in the order in which a round calls them.

    def start(self) -> State:
        """Return the server's state before the first round."""
        return {"shared": self.shared(self.setup.initial)}

    def plan(self, state: State, links: Links) -> Plan:
        """Choose clients and grant each its part of the uplink."""
        asked = partial(self.needs, state, links.round)
        chosen = self.setup.selector.choose(links, asked, state.get("average_rates"))
        return self.grant(state, links, chosen.clients).with_skipped(chosen.skipped)

    def grant(self, state: State, links: Links, clients: Ints) -> Plan:
        """Divide the uplink over the chosen clients: what a scheduler replaces."""
        needs = self.needs(state, links.round, clients)
        return allocate(links, clients, *needs, self.setup.cell)

    def needs(self, state: State, round: int, clients: Ints) -> Needed:
        """Return bits that clients mean to send, the least of use, and seconds of computing."""
        del state
        seconds = self.setup.compute_seconds(clients, self.work(round))
        return *self.upload_bits(clients), seconds

    def work(self, round: int) -> Work:
        """Return what a client computes in a round, to plan its time."""
        del round
        return Work(self.setup.train.local_steps)

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return what goes down to every client of the plan."""
        del plan
        return Dense(state["shared"], self.config.value_type)

    def receive(self, client: Client, payload: Any) -> None:
        """Make of the broadcast and the client's own state the adapter that it uses.

        All who heard it get the same ``payload``: make new tensors of it, do not write into it.
        """
        client.adapter = {**client.adapter, **payload.tensors, **client.state.get("private", {})}

    def personal(self, client: Client) -> Adapter:
        """Return the client's own model, made of what it received and its state; not trained."""
        return client.adapter

    def phases(self, client: Client) -> list[Phase]:
        """Return what the client trains, in order."""
        return [Phase(client.data, supervised, self.setup.train.local_steps)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what goes up, at most ``grant.bits`` when encoded, or nothing."""
        del grant
        self.keep_private(client)
        return Dense(self.shared(client.adapter), self.config.value_type)

    def accept(self, state: State, payload: Any) -> Any:
        """Return what :meth:`aggregate` gets of a payload; raise WireError to refuse it.

        Here a payload is read that means something only beside the server's ``state``.
        """
        del state
        return payload

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Return the server's state made of what arrived; called also when nothing did."""
        arrived = [delivery for delivery in deliveries if delivery.payload is not None]
        return {**state, "shared": {**state["shared"], **weighted_mean(arrived)}}

    # What a method measures besides accuracy.

    def judge(
        self, state: State, learner: Learner, adapter: Adapter, test: Examples
    ) -> dict[str, float]:
        """Return what this method measures of a model, by name: the server's or a client's own.

        ``state`` is the server's, ``test`` the global test set in the model's tokens. Called at
        every evaluation.
        """
        del state, learner, adapter, test
        return {}

    def judged_by(self, client: int, judged: Mapping[str, float]) -> dict[str, float]:
        """Return what was judged of a client's own model as this client sees it."""
        del client
        return dict(judged)

    def facts(self, state: State, test: Examples) -> dict[str, Any]:
        """Return what the summary should say of this method's run, as JSON has it."""
        del state, test
        return {}

    def files(self, state: State) -> dict[str, bytes]:
        """Return what a run directory should keep of this method, by relative path."""
        del state
        return {}

    # What a payload may speak of: decoding refuses everything else.

    def uplink_shapes(self) -> Shapes:
        """Return the shapes, by name, of the tensors that may go up."""
        return {name: tuple(t.shape) for name, t in self.shared(self.setup.initial).items()}

    def downlink_shapes(self) -> Shapes:
        """Return the shapes, by name, of the tensors that may come down."""
        return self.uplink_shapes()

    # What the hooks share.

    @property
    def private(self) -> Sequence[str]:
        """Patterns of tensors that never leave a client."""
        patterns: list[str] = self.config.private
        return patterns

    def is_shared(self, name: str) -> bool:
        """Return whether a tensor takes part in the federation."""
        return not any(fnmatchcase(name, pattern) for pattern in self.private)

    def shared(self, adapter: Mapping[str, Tensor]) -> Adapter:
        """Return the part of an adapter that may travel."""
        return {name: t for name, t in without_shifts(adapter).items() if self.is_shared(name)}

    def keep_private(self, client: Client) -> None:
        """Keep what a client learned and never sends for its next round."""
        learned = without_shifts(client.adapter)
        private = {name: t for name, t in learned.items() if not self.is_shared(name)}
        if private:
            client.state["private"] = private

    def train_server(
        self, adapter: Adapter, phase: Phase, round: int, moments: Moments | None = None
    ) -> Assignment:
        """Return what the server's model learned in a phase."""
        from airtune.learning.learner import Assignment

        # The server counts as one more client, so that its batches are its own.
        server = len(self.setup.examples)
        task = Assignment(server, round, dict(adapter), [phase], moments or {})
        for _ in self.setup.server.train([task]):
            pass
        return task

    def model(self, state: State) -> Adapter:
        """Return the server's own model; private tensors are there at their initial values."""
        return {**self.setup.initial, **state["shared"]}

    def upload_bits(self, clients: np.ndarray) -> tuple[ArrayLike, ArrayLike]:
        """Return what clients mean to send and the least that is of use, in bits, to plan with."""
        del clients
        return self.dense_bits, self.dense_bits

    @cached_property
    def dense_bits(self) -> int:
        """Size of the whole shared adapter, encoded."""
        return 8 * len(encode(Dense(self.shared(self.setup.initial), self.config.value_type)))


def check_size(payload: Payload, largest: float = _LARGEST) -> None:
    """Raise WireError for numbers that no training gives and that would spoil what all share."""
    for numbers in payload.numbers():
        if bool((numbers.abs() > largest).any()):
            raise WireError(f"it holds a number beyond {largest:g}.")
