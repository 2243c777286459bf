"""AdaLD: distillation with as many logits as the channel carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.distillation import Distillation
from airtune.learning.knowledge import Knowledge, floored, gather
from airtune.learning.projections import Gauge, Projections, Taps
from airtune.methods.adaptive import AdaptiveConfig, Sizes
from airtune.methods.fedmd import FedMD
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client, Setup, State
from airtune.radio.grant import Grant
from airtune.wire import Payload, Shapes, ValueBits


class AdaLDConfig(AdaptiveConfig):
    """Options of AdaLD: which entries, what stands for the others, and projections."""

    selection: Literal["top", "random"] = Option("top", description="which entries are sent")
    unsent: Literal["restrict", "floor"] = Option(
        "restrict",
        description="entries nobody sent: left out, or below the smallest one sent (zero and prob "
        "have values of their own for them)",
    )
    margin: PositiveFloat = Option(2.0, description="floor: how far below")
    projection_weight: NonNegativeFloat = Option(
        0.0, description="lambda, weight of the low-rank projections; 0: they are not sent"
    )
    projection_bits: ValueBits = Option(16, description="of each of a projection's numbers")
    projection_temperature: PositiveFloat = Option(1.0, description="tau_h")
    tap: Literal["last", "all"] = Option("last", description="adapted layers that are projected")
    pooling: Literal["mean", "last"] = Option("mean", description="over a text's tokens")
    gauge: Gauge = Option(
        "shared",
        description="bases of projections: one A for all, which equal models with frozen A have, "
        "or turned onto each other's",
    )


class AdaLD(FedMD):
    """Federated distillation of the top k logits, k as the client's channel carries (AdaLD).

    ``k_n = floor(eta C_n T / d)``, ``C_n = b_n log2(1 + SNR_n)`` (FOUND-S), d the bits of one
    entry of all public texts: here of the message as it is really encoded, indices included
    (DERIVED). If the smallest does not fit: without projections, then about fewer texts, then not
    at all. Aggregation over those who sent an entry (FOUND-P: no zero filling), weights DERIVED.
    The loss adds the KL of low-rank projections ``h = A x`` (FOUND-S).

    Source: arXiv 2509.01750, of which we know abstract and second-hand notes. Ours: frozen A alike
    everywhere as the gauge of h, or Procrustes; rules; units; the order of retreat; k_max.
    """

    Config: ClassVar[type[MethodConfig]] = AdaLDConfig
    sizes_vary = True  # what goes down has every entry that some client sent

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for more entries than there are, and for models without projections."""
        super().__init__(config, setup)
        for key in ("k", "k_min"):  # a k_max beyond what there is does no harm
            value = getattr(config, key)
            if value is not None and value > setup.width:
                raise UserError(
                    f"method.{key}: {value} is above the {setup.width} entries that a prediction "
                    f"has; give at most {setup.width}."
                )
        if self.projections is not None:
            for learner in (setup.server, *setup.models):
                self.projections.check(learner.model)

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the largest entries of each prediction, as many as fit."""
        self.keep(client)
        budget = self.budget_bits(grant)
        chosen = self._fit(client, budget)
        if chosen is None:
            return None
        k, texts, projected = chosen
        client.notes |= {"k": k, "texts": len(self.setup.public) if texts is None else len(texts)}
        return self.message(self._gathered(client, k, texts, projected), texts)

    def combined(self, known: Knowledge, payloads: Sequence[Any], state: State) -> Knowledge:
        """Fill in what nobody sent, if asked to, and combine the projections."""
        if self.config.unsent == "floor" and known.rest is None:
            known = floored(known, self.config.margin)
        sent = [(p.texts, p.projections) for p in payloads if p.projections is not None]
        if not sent or self.projections is None:
            return known
        reference = state.get("known", {}).get("projections")
        return replace(known, projections=self.projections.combine(sent, reference))

    def uplink_shapes(self) -> Shapes:
        """Return also the shape of the projections."""
        shapes = super().uplink_shapes()
        if self.projections is None:
            return shapes
        return {**shapes, "projections": self.projections.shape}

    # The budget, and what fits into it.

    def budget_bits(self, grant: Grant) -> float:
        """Return ``eta C T``, at most what is granted; infinite where nothing limits it."""
        if self.config.uplink_seconds is None:
            return grant.bits
        capacity = self.config.usable * grant.rate_bps * self.config.uplink_seconds
        return min(grant.bits, capacity)

    @property
    def most(self) -> int:
        """Most entries of a prediction that are worth sending."""
        return min(self.config.k or self.config.k_max or self.setup.width, self.setup.width)

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes of messages about the public texts."""
        shape = None if self.projections is None else self.projections.shape
        return Sizes(
            self.positions, self.setup.width, self.config.value_bits, shape, self.projection_bits
        )

    @cached_property
    def wanted_bits(self) -> int:
        """Size of the message that a client means to send."""
        return self.sizes.bits(self.most, projected=self.projections is not None)

    @cached_property
    def least_bits(self) -> int:
        """Size of the smallest message that is worth sending, about the longest texts."""
        bits, config = self.sizes.bits, self.config
        if config.k is not None:
            return bits(config.k)
        return min(bits(config.k_min), bits(config.k_min, self.sizes.longest(config.min_texts)))

    def _fit(self, client: Client, budget: float) -> tuple[int, Tensor | None, bool] | None:
        """Return k, the texts (None: all) and whether projections go along; None: nothing fits."""
        config, sizes = self.config, self.sizes
        fewest, retreat = config.k or config.k_min, ""
        if self.projections is not None:
            k = sizes.entries(fewest, self.most, budget, projected=True)
            if k is not None:
                return k, None, True
            client.notes["retreat"] = "without projections"
            retreat = "without projections, "
        k = sizes.entries(fewest, self.most, budget, projected=False)
        if k is not None:
            return k, None, False
        if config.k is not None:
            client.problem = f"k = {config.k} takes {sizes.bits(config.k)} bits of {budget:.0f}"
            return None
        rng = keyed.generator(self.setup.seed, "public part", client.round, client.index)
        order = torch.from_numpy(rng.permutation(len(self.setup.public)))
        least = min(config.min_texts, len(order))
        texts = sizes.texts(order, fewest, least, budget)
        if texts is None:
            client.problem = f"not even {least} public texts fit into {budget:.0f} bits"
            return None
        client.notes["retreat"] = f"{retreat}fewer texts"
        return fewest, texts, False

    def _gathered(self, client: Client, k: int, texts: Tensor | None, projected: bool) -> Knowledge:
        """Return the client's logits on these texts."""
        draw = None
        if self.config.selection == "random":
            seed = keyed.integer(self.setup.seed, "entries", client.round, client.index)
            draw = torch.Generator().manual_seed(seed)
        public = client.public if texts is None else client.public.select(texts.numpy())
        seen = client.predict(public, self.taps)
        positions = self.public_texts.positions_of(client.public)
        known = gather(seen, positions, self.setup.width, k, self.form, draw)
        if known.projections is not None and self.config.gauge == "procrustes":
            # Its own basis, into which it will turn what comes down.
            client.state["projections"] = known.projections
        if texts is not None:
            at = self.positions.about(texts)
            known = replace(known, values=known.values[at], index=known.index[at])
        return known if projected else replace(known, projections=None)

    # Projections.

    @cached_property
    def projections(self) -> Projections | None:
        """What is sent of low-rank projections, None if they are not."""
        config, setup = self.config, self.setup
        if config.projection_weight == 0.0:
            return None
        taps = Taps(config.tap, config.pooling)
        return Projections.of(setup.server.model, len(setup.public), taps, config.gauge)

    @property
    def taps(self) -> Taps | None:
        """Where projections are read, None if they are not."""
        return None if self.projections is None else self.projections.taps

    @property
    def projection_bits(self) -> ValueBits:
        """Of each of a projection's numbers."""
        return self.config.projection_bits

    @cached_property
    def objective(self) -> Distillation:
        """Logits, and projections where they are sent."""
        if self.projections is None:
            return super().objective
        return replace(
            super().objective,
            weight=self.config.projection_weight,
            taps=self.taps,
            projection_temperature=self.config.projection_temperature,
        )

    def constants(self, client: Client, known: Knowledge) -> dict[str, Tensor]:
        """Return how the projections that came down are turned into the client's basis."""
        if self.projections is None:
            return {}
        return self.projections.constants(known.projections, client.state.get("projections"))

    def server_constants(self, known: Knowledge, state: State) -> dict[str, Tensor]:
        """Return how combined projections are turned into the server's basis."""
        if self.projections is None or self.config.gauge == "shared":
            return {}
        own = self.server_knowledge(state, k=1).projections
        return self.projections.constants(known.projections, own)
