"""What a client does with its adapter: phases of data, objective, steps and trained tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from airtune.learning.data.examples import IGNORED, Examples
from airtune.learning.projections import Taps

if TYPE_CHECKING:
    from airtune.learning.adapter import AdaptedModel


@dataclass(frozen=True)
class Pass:
    """What an objective sees: the rows of S clients, slot after slot, and what is theirs.

    ``batch`` has input_ids, attention_mask, labels and the corpus' columns, each [S * rows, ...];
    ``constants`` are the phases' own, [S, ...].
    """

    model: AdaptedModel
    batch: Mapping[str, Tensor]
    slots: int
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)  # gradients, which are passes back to charge

    def logits(self) -> Tensor:
        """Return logits [S * rows, classes], or [S * rows, length, vocabulary]."""
        return self.model.logits(self.batch)

    def logits_and_projections(self, taps: Taps) -> tuple[Tensor, Tensor]:
        """Return logits, and what the taps read of each text, [S * rows, taps, rank]."""
        return self.model.tapped_logits(self.batch, taps)

    def adapter(self) -> dict[str, Tensor]:
        """Return the adapters' tensors by name, [S, ...]; a penalty on them has gradients."""
        return self.model.slots.active()

    def gradients(self, loss: Tensor, again: bool = False) -> dict[str, Tensor]:
        """Return the gradient of each slot's loss [S] in what trains, by name, [S, ...].

        ``again`` keeps the pass for another gradient.
        """
        self.taken.append("gradients")
        return self.model.slots.gradients(loss, again)

    def along(self, gradients: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        """Return ``loss`` [S] as a number whose gradient is this one, and not its own."""
        own = self.adapter()
        pull = torch.stack([(own[n] * g).flatten(1).sum(1) for n, g in gradients.items()]).sum(0)
        return pull - pull.detach() + loss.detach()


# One loss per client slot, [S]. It must depend on a slot's rows, constants and adapter only; then
# it trains one client or thirty at once with the same code. Clients share passes if their
# objectives compare equal: a function or a bound method, not a closure made for each client.
Objective = Callable[[Pass], Tensor]


@dataclass(frozen=True)
class Draft:
    """A client at the beginning of a phase: what the data of that phase is made of.

    ``index`` is the phase's number, ``data`` and ``constants`` are those of the phase.
    """

    client: int
    round: int
    index: int
    adapter: Mapping[str, Tensor]
    data: Examples
    constants: Mapping[str, Tensor]


@dataclass(frozen=True)
class Made:
    """What a phase learns from: answers to prompts, say.

    ``tokens`` went through the model without training to make it, and are charged as computing;
    ``notes`` are what the method may want to know of it.
    """

    examples: Examples
    tokens: int
    notes: Mapping[str, float] = field(default_factory=dict)


# Makes the data of clients that share passes, each from its own draft: whoever is beside it.
Maker = Callable[["AdaptedModel", Sequence[Draft]], Sequence[Made]]


@dataclass(frozen=True)
class Phase:
    """``steps`` optimiser steps on ``data`` towards ``objective``.

    ``trains`` are shell-style patterns of tensor names; the other tensors stay as they are.
    ``rate`` is a factor on the learning rates of the configuration, this client's own.
    ``constants`` are what the objective needs of this client beside its rows: an anchor, a weight.
    Where shapes differ between clients they are padded with zeros, as adapters are.
    ``batch_size`` is the configuration's if None. With ``goes_on`` the optimiser goes on from the
    client's last phase that did, of this round or an earlier one, instead of starting anew. With
    ``maker`` the phase learns from what that makes of ``data`` and of the adapter at its beginning.
    """

    data: Examples
    objective: Objective
    steps: int
    trains: tuple[str, ...] = ("*",)
    rate: float = 1.0
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    batch_size: int | None = None
    goes_on: bool = False
    maker: Maker | None = None

    def moves(self, name: str) -> bool:
        """Return whether a tensor of this name trains."""
        return _named(name, self.trains)


@lru_cache(maxsize=1 << 14)
def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def supervised(step: Pass) -> Tensor:
    """Return each slot's mean cross-entropy, [slots]: per example, or per response token."""
    losses, counted = token_losses(step.logits(), step.batch["labels"])
    return losses.view(step.slots, -1).sum(1) / counted.view(step.slots, -1).sum(1)


def token_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return summed cross-entropy and number of predictions of each row, both [rows].

    Logits [rows, classes] predict labels [rows]; logits [rows, length, vocabulary] at a position
    predict the label at the next one, where it is not IGNORED.
    """
    logits = logits.float()  # a sum over 150,000 entries of a vocabulary needs the precision
    if logits.dim() == 2:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return losses, losses.new_ones(losses.shape)
    # The labels move, not the logits: these are by far the larger of the two.
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    losses = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    counted = (targets != IGNORED).sum(1).to(losses.dtype)
    return losses.view(targets.shape).sum(1), counted
