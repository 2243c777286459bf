"""One optimiser for all slots: elementwise, hence S separate ones side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from airtune.learning.config import TrainConfig
from airtune.learning.slots import Block


def make(
    config: TrainConfig, blocks: Sequence[Block], heads: Collection[str], rates: Sequence[float]
) -> torch.optim.Optimizer:
    """Return the optimiser of ``blocks``; slot s learns at ``rates[s]`` times the configured rate.

    A block's tensors are all of a head or none is. Kernels are fused: one pass over the memory.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for block in blocks:
        base = config.head_learning_rate if block.names[0] in heads else config.learning_rate
        if len(set(rates)) == 1:
            groups.setdefault(base * rates[0], []).append(block.values)
            continue
        for slot, rate in enumerate(rates):
            row = nn.Parameter(block.values.data[slot])
            row.grad = block.gradients[slot]
            groups.setdefault(base * rate, []).append(row)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.SGD
    return kind(
        [{"params": parameters, "lr": rate} for rate, parameters in groups.items()],
        weight_decay=config.weight_decay,
        fused=blocks[0].values.device.type in ("cpu", "cuda"),
    )


def clip(blocks: Sequence[Block], bound: float) -> None:
    """Scale each slot's gradient to at most the norm ``bound``, by that slot's own norm."""
    # [slots, blocks] reduced along rows: a slot's sum has one order whatever the cohort.
    norms = torch.stack([block.gradient_norms() for block in blocks], dim=1).norm(dim=1)
    scale = (bound / (norms + 1e-6)).clamp_(max=1.0).unsqueeze(1)
    for block in blocks:
        block.gradients.mul_(scale)


@contextmanager
def kept(blocks: Sequence[Block], slots: list[int]) -> Iterator[None]:
    """Within, these slots keep their values: their clients are done."""
    saved = [(block, block.values.detach()[slots]) for block in blocks] if slots else []
    yield
    with torch.no_grad():
        for block, values in saved:
            block.values[slots] = values
