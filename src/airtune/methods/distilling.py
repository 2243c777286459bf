"""The round of federated distillation, whatever of their knowledge models send."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field as Option
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.data.examples import Examples
from airtune.learning.distillation import Distillation
from airtune.learning.ensemble import Part, Rule, combine
from airtune.learning.knowledge import Form, Knowledge, gather, limited
from airtune.learning.phase import Phase, supervised
from airtune.learning.projections import Taps
from airtune.learning.public import PublicTexts
from airtune.methods.method import Method, MethodConfig, Needed
from airtune.methods.views import Client, Delivery, Setup, State, Work
from airtune.radio.units import Ints
from airtune.wire import ValueBits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


class DistillingConfig(MethodConfig):
    """Options of federated distillation; steps are DERIVED, from pilot runs."""

    aggregation: Rule = Option("mask", description="how the server combines what clients sent")
    value_bits: ValueBits = Option(16, description="of a logit, both ways")
    temperature: PositiveFloat = Option(2.0, description="tau of distillation")
    public_steps: PositiveInt = Option(4, description="a client's steps of distillation per round")
    server_steps: PositiveInt = Option(16, description="the server's")
    public_batch_size: PositiveInt = Option(32, description="public texts in a step, of both")
    warm_up_steps: NonNegativeInt = Option(
        10, description="further steps on its own data in a client's first round"
    )
    downlink: Literal["ensemble", "server"] = Option(
        "ensemble", description="what clients learn from: what they said together, or the server"
    )
    downlink_entries: PositiveInt | None = Option(
        None,
        description="largest entries of each prediction that go down; default: all known. Under "
        "zero and prob the others are taken for the rest",
    )
    train_a: bool = Option(
        False, description="train LoRA's A too; default: it stays as it started, alike everywhere"
    )


class Distilling(Method, ABC):
    """Federated distillation on public texts; what travels is left to a method.

    A client distils what all know together from public texts, learns from its own, and sends what
    it knows of the public texts; the server combines that and distils it into its own model, which
    may be of another size and family. Payloads that :meth:`accept` returns have ``texts`` (None:
    all), ``values`` and ``index``, as :class:`airtune.learning.ensemble.Part` has them.
    """

    needs_public = True
    own_models = True
    why_not_summed = "its clients send what they know of public texts"

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where nothing can be predicted in public texts."""
        super().__init__(config, setup)
        self.public_texts = PublicTexts(setup.public)
        self.positions = self.public_texts.positions
        if len(self.positions) == 0:
            raise UserError("data.public: nothing can be predicted in the public texts.")

    # How knowledge travels.

    @abstractmethod
    def said(self, payload: Any) -> Knowledge:
        """Return what a broadcast says; the same tensors to all who heard it."""

    @property
    @abstractmethod
    def wanted_bits(self) -> int:
        """Size of the message that a client means to send."""

    @property
    @abstractmethod
    def least_bits(self) -> int:
        """Size of the smallest message that is of use."""

    # The hooks.

    def start(self) -> State:
        """Return the server's model, that nothing is known, and that nobody was met."""
        met = torch.zeros(len(self.setup.examples), dtype=torch.bool)
        return {"server": dict(self.setup.server.model.initial), "version": 0, "met": met}

    def needs(self, state: State, round: int, clients: Ints) -> Needed:
        """Return sizes of messages and seconds of computing; the first time takes longer."""
        del round
        seconds = self.setup.compute_seconds
        planned = np.where(
            state["met"][clients].numpy(),
            seconds(clients, self._work(state, 0)),
            seconds(clients, self._work(state, self.config.warm_up_steps)),
        )
        return self.wanted_bits, self.least_bits, planned

    def receive(self, client: Client, payload: Any) -> None:
        """Go on with the client's own adapter; nothing of it ever travels."""
        del payload
        client.adapter = {**client.adapter, **client.state.get("adapter", {})}
        client.moments = client.state.get("moments", {})

    def phases(self, client: Client) -> list[Phase]:
        """Distil what is known, then learn from private data."""
        config, known = self.config, self.said(client.heard)
        first = 0 if "adapter" in client.state else config.warm_up_steps  # as plan expects
        steps, trains = self.setup.train.local_steps + first, self._trained(client.adapter)
        private = Phase(client.data, supervised, steps, trains, goes_on=True)
        if len(known.values) == 0:
            return [private]
        taught = self.public_texts.taught(known, client.public)
        constants = self.constants(client, known)
        return [self._digest(taught, config.public_steps, trains, constants), private]

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Combine what arrived and distil it into the server's model."""
        met = state["met"].clone()
        met[[d.client for d in deliveries if d.loss is not None]] = True
        state = {**state, "met": met}
        payloads = [d.payload for d in deliveries if d.payload is not None]
        if not payloads:
            return state
        parts = [Part(self.positions.about(p.texts), p.values, p.index) for p in payloads]
        known = combine(parts, len(self.positions), self.setup.width, self.config.aggregation)
        known = self.combined(known, payloads, state)
        state = {**state, **self._distil(state, known)}
        k = self.config.downlink_entries
        if self.config.downlink == "server":
            known = self.server_knowledge(state, k or self.setup.width)
        return {**state, "known": limited(known, k).tensors(), "version": state["version"] + 1}

    def model(self, state: State) -> Adapter:
        """Return the server's model."""
        return state["server"]

    # What methods may change.

    @property
    def taps(self) -> Taps | None:
        """Where low-rank projections are read; here nowhere."""
        return None

    @cached_property
    def objective(self) -> Distillation:
        """What is learned on public texts."""
        return Distillation(self.config.temperature, width=self.setup.width)

    def constants(self, client: Client, known: Knowledge) -> dict[str, Tensor]:
        """Return what the objective needs of one client that learns what is known."""
        del client, known
        return {}

    def server_constants(self, known: Knowledge, state: State) -> dict[str, Tensor]:
        """Return what the objective needs of the server that learns what is known."""
        del known, state
        return {}

    def combined(self, known: Knowledge, payloads: Sequence[Any], state: State) -> Knowledge:
        """Return what is made of the combined logits."""
        del payloads, state
        return known

    def predicted_texts(self, state: State) -> int:
        """Return about how many public texts a client will predict."""
        del state
        return len(self.setup.public)

    # What they share.

    @property
    def private(self) -> Sequence[str]:
        """No tensor ever leaves a client."""
        return ("*",)

    @property
    def form(self) -> Form:
        """The form of logits that the rule of aggregation takes."""
        return "log-probabilities" if self.config.aggregation == "prob" else "centred"

    def keep(self, client: Client) -> None:
        """Keep what the client goes on from in its next round."""
        client.state["adapter"], client.state["moments"] = client.adapter, dict(client.moments)

    def server_knowledge(self, state: State, k: int) -> Knowledge:
        """Return the ``k`` largest entries that the server's own model predicts."""
        seen = self.setup.server.predict(state["server"], self.setup.public, self.taps)
        return gather(seen, self.positions, self.setup.width, k, self.form)

    def _distil(self, state: State, known: Knowledge) -> State:
        """Return what changes of the server's model; nothing if the training was not finite."""
        taught, constants = self.positions.teach(known), self.server_constants(known, state)
        trains = self._trained(state["server"])
        phase = self._digest(taught, self.config.server_steps, trains, constants)
        task = self.train_server(state["server"], phase, state["version"], state.get("moments", {}))
        if task.diverged:
            return {}
        return {"server": task.adapter, "moments": dict(task.moments)}

    def _digest(
        self, taught: Examples, steps: int, trains: tuple[str, ...], own: Mapping[str, Tensor]
    ) -> Phase:
        """Return the phase in which a client, or the server, learns; ``own`` are its constants."""
        size = self.config.public_batch_size
        return Phase(
            taught, self.objective, steps, trains, constants=own, batch_size=size, goes_on=True
        )

    def _work(self, state: State, more: int) -> Work:
        """Return a client's round: nothing is distilled while nothing is known."""
        config = self.config
        public = config.public_steps if state["version"] else 0
        steps = self.setup.train.local_steps + more
        return Work(steps, public, config.public_batch_size, self.predicted_texts(state))

    def _trained(self, adapter: Adapter) -> tuple[str, ...]:
        if self.config.train_a:
            return ("*",)
        return tuple(name for name in adapter if ".lora_A." not in name)
