"""A pull of what trains towards where it started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from airtune.learning.phase import Objective, Pass, supervised

ANCHOR = "anchor."  # beginning of the constants' names


@dataclass(frozen=True)
class Proximal:
    """The objective ``F + (weight / 2) sum_k ||theta_k - anchor_k||^2``, one loss per slot.

    Anchors are constants of the phase, by the names that :func:`anchors` gives them. Losses that
    are reported include the pull. Source: Li et al. 2020, FedProx (1812.06127).
    """

    weight: float
    inner: Objective = supervised

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]."""
        adapter = step.adapter()
        terms = [
            (adapter[name.removeprefix(ANCHOR)] - anchor).square().flatten(1).sum(1)
            for name, anchor in step.constants.items()
            if name.startswith(ANCHOR)
        ]
        return self.inner(step) + 0.5 * self.weight * torch.stack(terms).sum(0)


def anchors(adapter: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors named as constants of a phase, which hold them to where they are."""
    return {ANCHOR + name: adapter[name] for name in names}
