"""One optimiser for all slots: elementwise, hence S separate ones side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from airtune.learning.config import TrainConfig
from airtune.learning.slots import Block


class Steppers:
    """Makes optimisers of blocks; the last one is used again while blocks and rates are the same.

    A fresh one has no memory of the gradients before. Kernels are fused: one pass over the memory.
    """

    def __init__(self, config: TrainConfig, heads: Collection[str]) -> None:
        """``heads`` are the tensors that learn at the head's rate."""
        self._config, self._heads = config, frozenset(heads)
        self._last: tuple[list[Block], list[float], torch.optim.Optimizer] | None = None

    def fresh(self, blocks: list[Block], rates: list[float]) -> torch.optim.Optimizer:
        """Return an optimiser of ``blocks``; slot s learns at ``rates[s]`` times the usual rate.

        A block's tensors are all of a head or none is.
        """
        if self._last is not None and self._last[:2] == (blocks, rates):
            self._last[2].state.clear()
        else:
            self._last = blocks, rates, self._make(blocks, rates)
        return self._last[2]

    def _make(self, blocks: list[Block], rates: list[float]) -> torch.optim.Optimizer:
        config = self._config
        groups: dict[float, list[nn.Parameter]] = {}
        for block in blocks:
            is_head = block.names[0] in self._heads
            base = config.head_learning_rate if is_head else config.learning_rate
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
    parts = [block.gradient_norms() for block in blocks]
    norms = parts[0] if len(parts) == 1 else torch.stack(parts, dim=1).norm(dim=1)
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
