"""What a client does with its adapter: phases of data, objective, steps and trained tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from airtune.learning.data.examples import IGNORED, Examples

if TYPE_CHECKING:
    from airtune.learning.adapter import AdaptedModel

# (model, batch of S * rows, S) -> one loss per client slot, [S]. It must depend on a slot's rows
# and adapter only; then it trains one client or thirty at once with the same code.
Objective = Callable[["AdaptedModel", Mapping[str, Tensor], int], Tensor]


@dataclass(frozen=True)
class Phase:
    """``steps`` optimiser steps on ``data`` towards ``objective``.

    ``trains`` are shell-style patterns of tensor names; the other tensors stay as they are.
    """

    data: Examples
    objective: Objective
    steps: int
    trains: tuple[str, ...] = ("*",)


def supervised(model: AdaptedModel, batch: Mapping[str, Tensor], slots: int) -> Tensor:
    """Return each slot's mean cross-entropy, [slots]: per example, or per response token."""
    losses, counted = token_losses(model.logits(batch), batch["labels"])
    return losses.view(slots, -1).sum(1) / counted.view(slots, -1).sum(1)


def token_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return summed cross-entropy and number of predictions of each row, both [rows].

    Logits [rows, classes] predict labels [rows]; logits [rows, length, vocabulary] at a position
    predict the label at the next one, where it is not IGNORED.
    """
    if logits.dim() == 2:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return losses, torch.ones_like(losses)
    targets = labels[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1), (targets != IGNORED).sum(1).to(losses.dtype)
