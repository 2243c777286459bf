"""Federated distillation: logits travel instead of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Option
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.distillation import Distillation
from airtune.learning.ensemble import Part, Rule, combine
from airtune.learning.knowledge import Knowledge, Positions, gather, limited
from airtune.learning.phase import Phase, supervised
from airtune.learning.projections import Taps
from airtune.methods.method import Client, Delivery, Method, MethodConfig, Setup, State, Work
from airtune.radio.cell import Links
from airtune.radio.grant import Grant
from airtune.scheduling.allocate import allocate
from airtune.scheduling.plan import Plan
from airtune.scheduling.selection import choose_randomly
from airtune.wire import Payload, Shapes, SparseLogits, ValueBits, WireError, message_bits

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter
    from airtune.learning.data.examples import Examples


_LARGEST = 1e4  # of logits: far beyond any model's, and float16 holds their means


class FedMDConfig(MethodConfig):
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


class FedMD(Method):
    """Federated distillation of all logits on public texts; the reference for those of some.

    A client distils what all know together from public texts, learns from its own, and sends its
    logits on the public texts; the server combines them and distils them into its own model,
    which may be of another size and family.

    Source: FedMD (Li and Wang 2019) for the consensus and its digest before private learning; the
    server's model as in KD-FedLLM (2501.04436, second hand). Rules of aggregation: see
    :func:`airtune.learning.ensemble.combine`; with all logits ``mask`` is their plain mean.
    Ours: centring of logits, frozen A, a longer first round.
    """

    Config: ClassVar[type[MethodConfig]] = FedMDConfig
    uplink_payload: ClassVar[type] = SparseLogits
    needs_public = True
    own_models = True

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where nothing can be predicted in public texts."""
        super().__init__(config, setup)
        self._known_positions: dict[int, Positions] = {}
        self._taught: tuple[Any, dict[int, Examples]] = (None, {})
        if len(self.positions) == 0:
            raise UserError("data.public: nothing can be predicted in the public texts.")

    # The hooks.

    def start(self) -> State:
        """Return the server's model, that nothing is known, and that nobody was met."""
        met = torch.zeros(len(self.setup.examples), dtype=torch.bool)
        return {"server": dict(self.setup.server.model.initial), "version": 0, "met": met}

    def plan(self, state: State, links: Links) -> Plan:
        """Choose clients and grant each its part of the uplink."""
        setup = self.setup
        chosen = choose_randomly(len(links), setup.per_round, setup.seed, links.round)
        seconds = np.where(
            state["met"][chosen].numpy(),
            setup.compute_seconds(chosen, self._work(state, 0)),
            setup.compute_seconds(chosen, self._work(state, self.config.warm_up_steps)),
        )
        return allocate(links, chosen, self.wanted_bits, self.least_bits, seconds, setup.cell)

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return what is known; in the first round there is nothing."""
        del plan
        nothing = torch.zeros(0, 0)
        known = state.get("known", {"values": nothing, "index": nothing.long()})
        return self.message(Knowledge(width=self.setup.width, **known))

    def receive(self, client: Client, payload: Any) -> None:
        """Go on with the client's own adapter; nothing of it ever travels."""
        del payload
        client.adapter = {**client.adapter, **client.state.get("adapter", {})}
        client.moments = client.state.get("moments", {})

    def phases(self, client: Client) -> list[Phase]:
        """Distil what is known, then learn from private data."""
        config, train = self.config, self.setup.train
        trains = self._trained(client.adapter)
        said = self.said(client.heard)
        if len(said.values):
            before = [
                Phase(
                    self.taught(said, client.public),
                    self.objective,
                    config.public_steps,
                    trains,
                    constants=self.constants(client),
                    batch_size=config.public_batch_size,
                    goes_on=True,
                )
            ]
        else:
            before = []
        first = 0 if "adapter" in client.state else config.warm_up_steps  # as plan expects
        steps = train.local_steps + first
        return [*before, Phase(client.data, supervised, steps, trains, goes_on=True)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send all logits."""
        del grant
        self.keep(client)
        positions = self.positions_of(client.public)
        seen = client.predict(client.public)
        return self.message(gather(seen, positions, self.setup.width, self.setup.width, self.form))

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse logits that are not about as many predictions as their texts have."""
        del state
        sent = payload.value_bits, payload.projection_bits
        if sent != (self.config.value_bits, self.projection_bits):
            raise WireError(f"numbers have {sent} bits, not those of this method.")
        self.check_size(payload)
        if len(self._where(payload)) != len(payload.values):
            raise WireError(
                f"logits of {len(payload.values)} predictions, but its texts have "
                f"{len(self._where(payload))}."
            )
        return payload

    def aggregate(self, state: State, deliveries: Sequence[Delivery]) -> State:
        """Combine what arrived and distil it into the server's model."""
        met = state["met"].clone()
        met[[d.client for d in deliveries if d.loss is not None]] = True
        state = {**state, "met": met}
        payloads = [d.payload for d in deliveries if d.payload is not None]
        if not payloads:
            return state
        parts = [Part(self._where(p), p.values, p.index) for p in payloads]
        rule = self.config.aggregation
        together = self.combined(
            combine(parts, len(self.positions), self.setup.width, rule), payloads, state
        )
        state = {**state, **self._distil(state, together)}
        if self.config.downlink == "server":
            seen = self.setup.server.predict(state["server"], self.setup.public, self.taps)
            k = self.config.downlink_entries or self.setup.width
            together = gather(seen, self.positions, self.setup.width, k, self.form)
        known = _as_state(limited(together, self.config.downlink_entries))
        return {**state, "known": known, "version": state["version"] + 1}

    def uplink_shapes(self) -> Shapes:
        """Return how many predictions there are of how many entries."""
        texts = len(self.setup.public)
        return {"logits": (len(self.positions), self.setup.width), "texts": (texts,)}

    def model(self, state: State) -> Adapter:
        """Return the server's model."""
        adapter: Adapter = state["server"]
        return adapter

    # What those who send fewer logits change.

    def said(self, payload: Any) -> SparseLogits:
        """Return what a broadcast says."""
        logits: SparseLogits = payload
        return logits

    @property
    def taps(self) -> Taps | None:
        """Where low-rank projections are read; here nowhere."""
        return None

    @property
    def projection_bits(self) -> ValueBits:
        """Of each of a projection's numbers."""
        return 16

    def keep(self, client: Client) -> None:
        """Keep what the client goes on from in its next round."""
        client.state["adapter"], client.state["moments"] = client.adapter, dict(client.moments)

    @property
    def private(self) -> Sequence[str]:
        """No tensor ever leaves a client."""
        return ("*",)

    @cached_property
    def objective(self) -> Distillation:
        """What is learned on public texts."""
        return Distillation(self.config.temperature, width=self.setup.width)

    def constants(self, client: Client) -> dict[str, Tensor]:
        """Return what the objective needs of one client."""
        del client
        return {}

    def combined(self, known: Knowledge, payloads: Sequence[Any], state: State) -> Knowledge:
        """Return what is made of the combined logits."""
        del payloads, state
        return known

    @property
    def wanted_bits(self) -> int:
        """Size of the message that a client means to send."""
        return self.dense_bits

    @property
    def least_bits(self) -> int:
        """Size of the smallest message that is of use."""
        return self.dense_bits

    # What they share.

    @property
    def form(self) -> Any:
        """The form of logits that the rule of aggregation takes."""
        return "log-probabilities" if self.config.aggregation == "prob" else "centred"

    @cached_property
    def positions(self) -> Positions:
        """Where the server's predictions on public texts lie."""
        return self.positions_of(self.setup.public)

    def positions_of(self, public: Examples) -> Positions:
        """Return where predictions on public texts lie, in the tokens of some model."""
        key = id(public.corpus)
        if key not in self._known_positions:
            self._known_positions[key] = Positions(public)
        return self._known_positions[key]

    def taught(self, payload: SparseLogits, public: Examples) -> Examples:
        """Return public texts with what a broadcast says of them, made once for all clients."""
        if self._taught[0] is not payload:
            self._taught = payload, {}
        known = Knowledge(
            payload.values, payload.index, payload.width, payload.rest, payload.projections
        )
        made = self._taught[1]
        if id(public.corpus) not in made:
            made[id(public.corpus)] = self.positions_of(public).teach(known)
        return made[id(public.corpus)]

    def message(self, known: Knowledge, texts: Tensor | None = None) -> SparseLogits:
        """Return knowledge as it travels: entries by ascending index."""
        order = known.index.masked_fill(known.values.isinf(), known.width).argsort(1)
        return SparseLogits(
            known.values.gather(1, order),
            known.index.gather(1, order),
            known.width,
            self.config.value_bits,
            texts,
            known.rest,
            known.projections,
            self.projection_bits,
        )

    @cached_property
    def dense_bits(self) -> int:
        """Size of a message with all logits."""
        width = self.setup.width
        return message_bits(len(self.positions), width, width, self.config.value_bits)

    def check_size(self, payload: SparseLogits) -> None:
        """Refuse numbers that no model gives and that would spoil everybody's mean."""
        for numbers in payload.numbers():
            if bool((numbers.abs() > _LARGEST).any()):
                raise WireError(f"it holds a logit beyond {_LARGEST:g}.")

    def _work(self, state: State, more: int) -> Work:
        """Return a client's round: nothing is distilled while nothing is known."""
        config = self.config
        public = config.public_steps if state["version"] else 0
        steps = self.setup.train.local_steps + more
        return Work(steps, public, config.public_batch_size, self.predicted_texts(state))

    def predicted_texts(self, state: State) -> int:
        """Return about how many public texts a client will predict."""
        del state
        return len(self.setup.public)

    def _where(self, payload: SparseLogits) -> Tensor:
        """Return the positions of a message's texts."""
        if payload.texts is None:
            return torch.arange(len(self.positions))
        return self.positions.about(payload.texts)

    def _distil(self, state: State, known: Knowledge) -> State:
        """Return what changes of the server's model; nothing if the training was not finite."""
        phase = Phase(
            self.positions.teach(known),
            self.objective,
            self.config.server_steps,
            self._trained(state["server"]),
            constants=self.server_constants(known, state),
            batch_size=self.config.public_batch_size,
            goes_on=True,
        )
        task = self.train_server(state["server"], phase, state["version"], state.get("moments", {}))
        if task.diverged:
            return {}
        return {"server": task.adapter, "moments": dict(task.moments)}

    def server_constants(self, known: Knowledge, state: State) -> dict[str, Tensor]:
        """Return what the objective needs of the server."""
        del known, state
        return {}

    def _trained(self, adapter: Adapter) -> tuple[str, ...]:
        if self.config.train_a:
            return ("*",)
        return tuple(name for name in adapter if ".lora_A." not in name)


def _as_state(known: Knowledge) -> State:
    fields = {
        "values": known.values,
        "index": known.index,
        "rest": known.rest,
        "projections": known.projections,
    }
    return {name: value for name, value in fields.items() if value is not None}
