"""AdaLD with few bits: coarse values, coded against what the server said, about some texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Option
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from airtune import keyed
from airtune.learning.knowledge import Knowledge, gather, remembering
from airtune.methods.adald import AdaLD
from airtune.methods.adaptive import AdaptiveConfig, largest
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client, State
from airtune.radio.grant import Grant
from airtune.scheduling.plan import Plan
from airtune.wire import (
    MOST_ENTRIES,
    CodedLogits,
    Payload,
    Reference,
    SparseLogits,
    ValueBits,
    WireError,
    decode,
    encode,
)


class AdaLDCodedConfig(AdaptiveConfig):
    """Options of coded AdaLD."""

    aggregation: Literal["mask", "count", "mag"] = Option(
        "mag", description="how the server combines what clients sent"
    )
    downlink: Literal["ensemble"] = Option("ensemble", description="what clients learn from")
    k: PositiveInt | None = Option(
        None,
        le=MOST_ENTRIES,
        description="entries of each prediction; default: as many as the channel carries",
    )
    k_max: PositiveInt | None = Option(
        12, le=MOST_ENTRIES, description=f"most; null: all, at most {MOST_ENTRIES}"
    )
    value_bits: Literal[2, 3, 4, 5, 6, 8] = Option(4, description="of a logit, both ways")
    downlink_entries: PositiveInt | None = Option(
        8, le=MOST_ENTRIES, description="largest entries of each prediction that go down"
    )
    share: float = Option(
        0.5, gt=0, le=1, description="of the public texts that are asked about in one round"
    )
    whole_rounds: NonNegativeInt = Option(
        3, description="rounds at the beginning in which all texts are asked about"
    )


class AdaLDCoded(AdaLD):
    """AdaLD at a fraction of its bits (ours; nothing of it is in the paper).

    Values have 4 bits and one scale for the message. Entries are coded by a range coder against
    the ranking that the server has just broadcast, which both sides hold: likely entries cost
    little, and so do values near those of the broadcast. Only the 12 largest entries are sent, and,
    once the server knows a little, only about half of the public texts, the other half in the next
    round; the server remembers what was said of the others. The downlink is coded too, without a
    reference, as anybody may be new.

    A message names the version of the broadcast that it was coded against. A client codes against
    what it heard in this very round, so lost rounds before do no harm.
    """

    Config: ClassVar[type[MethodConfig]] = AdaLDCodedConfig
    uplink_payload: ClassVar[type] = CodedLogits
    _last_said: tuple[CodedLogits, Knowledge, Reference] | None = None
    _last_own: tuple[Tensor | None, Any] | None = None

    projections = None
    projection_bits: ValueBits = 16

    @property
    def most(self) -> int:
        """Most entries of a prediction that are worth sending."""
        return min(super().most, MOST_ENTRIES)

    def broadcast(self, state: State, plan: Plan) -> Payload:
        """Return what is known, coded by itself; in the first round there is nothing."""
        del plan
        known = state.get("known")
        if known is None:
            nothing = Reference.nothing(0, self.setup.width)
            return self._code(nothing.values, nothing.index, nothing, state["version"], 0)[0]
        reference = Reference.nothing(len(self.positions), self.setup.width)
        texts = len(self.setup.public)
        values, index = known["values"][:, :MOST_ENTRIES], known["index"][:, :MOST_ENTRIES]
        return self._code(values, index, reference, state["version"], texts)[0]

    def said(self, payload: Any) -> Knowledge:
        """Read what came down, once for all who heard it."""
        return self._said(payload)[0]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the largest entries about the texts that are asked for, as many as fit."""
        self.keep(client)
        version, (_, reference) = client.heard.version, self._said(client.heard)
        budget, asked = self.budget_bits(grant), self.asked(version)
        public = client.public.select(asked.sort().values.numpy())
        positions = self.public_texts.positions_of(client.public)
        known = gather(client.predict(public), positions, self.setup.width, self.most, self.form)

        def coded(k: int, texts: int) -> tuple[CodedLogits, float]:
            at = self.positions.about(asked[:texts])
            values, index = known.values[at, :k], known.index[at, :k]
            return self._code(values, index, reference.at(at), version, texts)

        fewest = self.config.k or self.config.k_min
        k, texts = self.most, len(asked)
        payload, model_bits = coded(k, texts)
        if _size(payload) > budget and _size(coded(fewest, texts)[0]) <= budget:
            ks = range(fewest, self.most)
            k = largest(ks, lambda k: _size(coded(k, texts)[0]), budget) or fewest
            payload, model_bits = coded(k, texts)
        elif _size(payload) > budget:
            counts = range(min(self.config.min_texts, texts), texts)
            fitting = largest(counts, lambda n: _size(coded(fewest, n)[0]), budget)
            if fitting is None or self.config.k is not None:
                client.problem = f"{_size(payload)} bits do not fit into {budget:.0f}"
                return None
            client.notes["retreat"] = "fewer texts"
            k, texts = fewest, fitting
            payload, model_bits = coded(k, texts)
        client.notes |= {"k": k, "texts": texts, "model_bits": round(model_bits, 1)}
        return payload

    def accept(self, state: State, payload: Any) -> Any:
        """Read a message beside the broadcast that it was coded against."""
        if payload.version != state["version"]:
            raise WireError(
                f"it was coded against version {payload.version} of what is known, "
                f"and this is version {state['version']}."
            )
        asked = self.asked(payload.version)
        if payload.texts > len(asked):
            raise WireError(f"it is about {payload.texts} texts, {len(asked)} were asked for.")
        texts = asked[: payload.texts].sort().values
        _, reference = self._said(self._own_broadcast(state))
        values, index = payload.read(reference.at(self.positions.about(texts)))
        logits = SparseLogits(values, index, self.setup.width, texts=texts)
        self.check_size(logits)
        return logits

    def combined(self, known: Knowledge, payloads: Sequence[Any], state: State) -> Knowledge:
        """Remember what was known of texts that nobody spoke of now."""
        return remembering(known, state.get("known"))

    def asked(self, version: int) -> Tensor:
        """Return the public texts that a version asks about, in the order in which they count."""
        texts = len(self.setup.public)
        order = keyed.generator(self.setup.seed, "asked").permutation(texts)
        if version < self.config.whole_rounds:
            return torch.from_numpy(order)
        count = max(1, round(self.config.share * texts))
        return torch.from_numpy(np.roll(order, -version * count)[:count])

    @cached_property
    def least_bits(self) -> int:
        """Size of the smallest message that is worth sending, if coding gained nothing."""
        if self.config.k is not None:
            return self.sizes.bits(self.config.k)
        texts = torch.arange(min(self.config.min_texts, len(self.setup.public)))
        return self.sizes.bits(self.config.k_min, texts)

    def predicted_texts(self, state: State) -> int:
        """Return how many texts clients are asked about."""
        return len(self.asked(state["version"]))

    def _code(
        self, values: Tensor, index: Tensor, reference: Reference, version: int, texts: int
    ) -> tuple[CodedLogits, float]:
        bits = self.config.value_bits
        return CodedLogits.of(values, index, reference, bits, version, texts)

    def _said(self, payload: CodedLogits) -> tuple[Knowledge, Reference]:
        """Return what a broadcast says, and the reference that it makes; kept for the last one."""
        if self._last_said is None or self._last_said[0] is not payload:
            whole = Reference.nothing(len(self.positions) if payload.texts else 0, self.setup.width)
            values, index = payload.read(whole)
            order = values.argsort(dim=1, descending=True, stable=True)
            reference = Reference(values.gather(1, order), index.gather(1, order), whole.width)
            if not payload.texts:
                reference = Reference.nothing(len(self.positions), self.setup.width)
            self._last_said = payload, Knowledge(values, index, self.setup.width), reference
        return self._last_said[1:]

    def _own_broadcast(self, state: State) -> CodedLogits:
        """Return the broadcast of this state as clients read it, made once for all messages."""
        known = state.get("known", {}).get("values")
        if self._last_own is None or self._last_own[0] is not known:
            message = encode(self.broadcast(state, Plan(0, {}, {})))
            read: Any = decode(message, self.downlink_shapes())
            self._last_own = known, read
        own: CodedLogits = self._last_own[1]
        return own


def _size(payload: CodedLogits) -> int:
    return 8 * len(encode(payload))
