"""One optimiser for all slots: elementwise, hence S separate ones side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from airtune.learning.config import TrainConfig
from airtune.learning.slots import Block

# Mean gradients and mean squares by tensor, [2, size], freed of the bias of their first steps.
Moments = Mapping[str, Tensor]
_SETTLED = 1e6  # steps after which Adam's correction of that bias is none


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
        listed = [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
        fused = blocks[0].values.device.type in ("cpu", "cuda")
        if config.optimiser == "sgd":
            return torch.optim.SGD(listed, weight_decay=config.weight_decay, fused=fused)
        betas = 0.9, config.adam_beta2
        return torch.optim.AdamW(listed, betas=betas, weight_decay=config.weight_decay, fused=fused)


def gradient_norms(blocks: Sequence[Block]) -> Tensor:
    """Return the norm of each slot's gradient over all blocks, [slots]."""
    # [slots, blocks] reduced along rows: a slot's sum has one order whatever the cohort.
    parts = [block.gradient_norms() for block in blocks]
    return parts[0] if len(parts) == 1 else torch.stack(parts, dim=1).norm(dim=1)


def clip(blocks: Sequence[Block], norms: Tensor, bound: float) -> None:
    """Scale each slot's gradient to at most the norm ``bound``, by that slot's own norm."""
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


def recall(
    stepper: torch.optim.Optimizer, blocks: Sequence[Block], all_: Sequence[Moments]
) -> None:
    """Let an Adam go on from moments, one mapping for each slot; other kinds have none.

    They count as settled: slots that have taken different numbers of steps can go on together.
    """
    if not isinstance(stepper, torch.optim.AdamW):
        return
    for block, parameter, slot in _parameters(stepper, blocks):
        chosen = all_ if slot is None else [all_[slot]]
        if not all(name in each for each in chosen for name in block.names):
            continue  # tensors that train for the first time begin anew
        rows = torch.zeros(2, len(chosen), block.values.shape[1])
        for place, moments in enumerate(chosen):
            joined = torch.cat([moments[name] for name in block.names], dim=1)
            rows[:, place, : joined.shape[1]] = joined
        mean, square = rows.to(block.values.device).view(2, *parameter.shape)
        step = torch.tensor(_SETTLED, device=parameter.device)
        stepper.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}


def moments(stepper: torch.optim.Optimizer, blocks: Sequence[Block]) -> list[dict[str, Tensor]]:
    """Return each slot's moments, by tensor; nothing where the optimiser has none."""
    all_: list[dict[str, Tensor]] = [{} for _ in range(len(blocks[0].values))]
    for block, parameter, slot in _parameters(stepper, blocks):
        state: Mapping[str, Any] = stepper.state.get(parameter, {})
        if "exp_avg" not in state:
            continue
        first, second = stepper.param_groups[0]["betas"]
        step = float(state["step"])
        mean = state["exp_avg"] / (1.0 - first**step)
        square = state["exp_avg_sq"] / (1.0 - second**step)
        rows = torch.stack([mean, square]).view(2, -1, block.values.shape[1]).cpu()
        for place in range(rows.shape[1]):
            pieces = rows[:, place].split(block.sizes, dim=1)
            for name, piece in zip(block.names, pieces, strict=False):
                all_[place if slot is None else slot][name] = piece.clone()
    return all_


def _parameters(
    stepper: torch.optim.Optimizer, blocks: Sequence[Block]
) -> Iterator[tuple[Block, Tensor, int | None]]:
    """Yield blocks with what is optimised of them: all slots, or slot by slot."""
    known = {id(p): p for group in stepper.param_groups for p in group["params"]}
    rows = {p.data_ptr(): p for p in known.values()}
    for block in blocks:
        if id(block.values) in known:
            yield block, block.values, None
            continue
        for slot, row in enumerate(block.values.data):
            yield block, rows[row.data_ptr()], slot
