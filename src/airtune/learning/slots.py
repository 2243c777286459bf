"""Many clients' adapters side by side on one frozen backbone.

A batch holds the rows of S clients, slot after slot, [S * rows, ...]. Each module with trainable
tensors is replaced by one with such tensors for each slot (``slot_modules.py``), so that a slot's
weights see that slot's rows only. Optimisers are elementwise; so S slots train as S separate runs
would.

The tensors of a slot lie end to end in one row of a block, [S, width], and so do their gradients:
clipping, the optimiser, loading and reading are a few operations whatever the number of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from airtune.learning.label_bias import LabelBiases
from airtune.learning.shifts import Shifts
from airtune.learning.slot_modules import ActiveSlots, slot_module
from airtune.learning.standalone import in_layer

# Rows of a block are padded to this, so that vectorised kernels have no remainder to treat
# differently, and norms are sums of such pieces: one order of summation for any number of slots.
_PIECE = 512


class Block:
    """Some of the trainable tensors of all slots: values and gradients, both [S, width]."""

    def __init__(
        self, names: Sequence[str], sizes: Sequence[int], slots: int, device: torch.device
    ):
        self.names = tuple(names)
        used = sum(sizes)
        width = -(-used // _PIECE) * _PIECE
        self.sizes = [*sizes, width - used]  # of the tensors in a row, and of its padding
        self.values = nn.Parameter(torch.zeros(slots, width, device=device))
        self.gradients = torch.zeros_like(self.values)
        self.values.grad = self.gradients
        self._padding = torch.zeros(slots, width - used, device=device)
        self.parameters: list[nn.Parameter] = []  # the model's, one for each name
        self._trains = True

    def views(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor's name and its values, [S, size]."""
        yield from zip(self.names, self.values.data.split(self.sizes, dim=1), strict=False)

    def train(self, mode: bool) -> None:
        """Say whether gradients are taken in these tensors."""
        if mode != self._trains:
            self._trains = mode
            for parameter in self.parameters:
                parameter.requires_grad_(mode)

    def collect(self) -> None:
        """Move the model's gradients, which autograd hands over one by one, into ``gradients``."""
        rows = len(self.values)
        pieces = [
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(rows, -1)
            for p in self.parameters
        ]
        torch.cat([*pieces, self._padding], dim=1, out=self.gradients)
        for parameter in self.parameters:
            parameter.grad = None

    def gradient_norms(self) -> Tensor:
        """Return the norm of each slot's gradient, [S]."""
        pieces = self.gradients.view(len(self.values), -1, _PIECE)
        return torch.linalg.vector_norm(torch.linalg.vector_norm(pieces, dim=2), dim=1)


class Slots:
    """The trainable tensors of a model, one copy per slot, loaded from and read as dictionaries."""

    def __init__(self, model: nn.Module, names: Mapping[str, str], whole: bool = False) -> None:
        """``names`` maps each trainable parameter's name in ``model`` to its name as a tensor.

        Linear maps have a form with slots; with ``whole`` so have Conv1D and norms.
        """
        self._active = ActiveSlots()
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        for parameter_name, name in names.items():
            path, _, leaf = parameter_name.rpartition(".")
            self._owners[name] = (model.get_submodule(path), leaf)
        owners = {id(owner): owner for owner, _ in self._owners.values()}
        inside = {id(owner): whole and in_layer(n) for n, (owner, _) in self._owners.items()}
        replaced: dict[int, nn.Module] = {}
        for key, owner in owners.items():
            if (module := slot_module(owner, self._active, whole, inside[key])) is None:
                break
            replaced[key] = module
        self.stacked = len(replaced) == len(owners)
        if self.stacked:
            for parent in list(model.modules()):
                for child_name, child in list(parent.named_children()):
                    if id(child) in replaced:
                        setattr(parent, child_name, replaced[id(child)])
            self._owners = {
                name: (replaced[id(owner)], leaf) for name, (owner, leaf) in self._owners.items()
            }
        else:
            for owner in owners.values():
                if isinstance(owner, nn.Linear):  # a head: float32 behind a backbone of any type
                    owner.register_forward_pre_hook(
                        lambda module, args: (args[0].to(module.weight.dtype), *args[1:])
                    )
        skip = 1 if self.stacked else 0
        self.shapes = {name: tuple(p.shape[skip:]) for name, p in self.parameters.items()}
        self.initial = {
            name: p.detach().float().cpu().clone().view(self.shapes[name])
            for name, p in self.parameters.items()
        }
        self._own_shapes: list[dict[str, torch.Size]] = []
        self.shifts, self._label_biases = Shifts(), LabelBiases()
        self.blocks: list[Block] = []

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by tensor name: [S, ...], or [...] where kinds allow no slots."""
        return {name: getattr(owner, leaf) for name, (owner, leaf) in self._owners.items()}

    def load(
        self, adapters: Sequence[Mapping[str, Tensor]], parts: Iterable[Sequence[str]] = ()
    ) -> None:
        """Fill as many slots as there are adapters; shifts and biases are of these alone.

        ``parts`` are groups of tensor names that train alike; each becomes a block, and what they
        do not name another. A tensor smaller than the model's (a LoRA of lower rank) is padded
        with zeros; for both factors zero they stay zero, as each one's gradient is the other.
        """
        if not self.stacked and len(adapters) != 1:
            raise ValueError("this adapter kind trains one client at a time.")
        self.shifts.load(adapters)
        self._label_biases.load(adapters)
        self._arrange(len(adapters), [tuple(part) for part in parts])
        self._own_shapes = [{} for _ in adapters]
        with torch.no_grad():
            for slot, adapter in enumerate(adapters):
                for block in self.blocks:
                    row = torch.cat([self._fitted(slot, n, adapter[n]) for n in block.names])
                    block.values[slot, : len(row)] = row

    def read(self) -> list[dict[str, Tensor]]:
        """Return each slot's adapter, on the CPU: views into one copy of all slots."""
        adapters: list[dict[str, Tensor]] = [{} for _ in self._own_shapes]
        for block in self.blocks:
            rows = block.values.detach().to("cpu", copy=True)
            for adapter, own, row in zip(adapters, self._own_shapes, rows, strict=True):
                pieces = row.split(block.sizes)
                for name, piece in zip(block.names, pieces, strict=False):
                    value = piece.view(self.shapes[name])
                    adapter[name] = _corner(value, own[name]) if name in own else value
        return [{name: adapter[name] for name in self.shapes} for adapter in adapters]

    def finite(self) -> list[bool]:
        """Return for each slot whether all of its values are finite."""
        checks = [torch.isfinite(block.values.detach()).all(1).tolist() for block in self.blocks]
        return [all(slot) for slot in zip(*checks, strict=True)]

    def train_only(self, blocks: Sequence[Block]) -> None:
        """Let gradients be taken in the tensors of these blocks, and in no others."""
        for block in self.blocks:
            block.train(any(block is other for other in blocks))

    def divides(self, run: Callable[[], object], rows: int) -> bool:
        """Return whether all that ``run`` sends through adapters has the pass's ``rows``."""
        self._active.rows, self._active.mixed = rows, False
        try:
            run()
        finally:
            self._active.rows = None
        return not self._active.mixed

    def active(self) -> dict[str, Tensor]:
        """Return the adapters' tensors that the current pass uses, [slots, ...]."""
        indices = self._active.indices
        if not self.stacked:
            return {name: parameter.unsqueeze(0) for name, parameter in self.parameters.items()}
        if indices is None:
            return dict(self.parameters)
        return {name: parameter[indices] for name, parameter in self.parameters.items()}

    def biased(self, logits: Tensor) -> Tensor:
        """Return logits [rows, classes] of the current pass with the slots' label biases."""
        return self._label_biases.added(logits, self._active.indices)

    def gradients(self, loss: Tensor, again: bool) -> dict[str, Tensor]:
        """Return the gradient of the current pass's losses [slots] in what trains, [slots, ...].

        ``again`` keeps the pass for another gradient.
        """
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        found = torch.autograd.grad(
            loss.sum(), list(trained.values()), retain_graph=again, allow_unused=True
        )
        indices, gradients = self._active.indices, {}
        for (name, parameter), gradient in zip(trained.items(), found, strict=True):
            whole = torch.zeros_like(parameter) if gradient is None else gradient
            if not self.stacked:
                whole = whole.unsqueeze(0)
            gradients[name] = whole if indices is None else whole[indices]
        return gradients

    @contextmanager
    def only(self, indices: Tensor | None) -> Iterator[None]:
        """Within, the rows of a forward pass belong to these slots."""
        self._active.indices = indices
        try:
            yield
        finally:
            self._active.indices = None

    def _arrange(self, count: int, parts: list[tuple[str, ...]]) -> None:
        """Give every part its block, and point the model's parameters into it."""
        named = {name for part in parts for name in part}
        rest = tuple(name for name in self.shapes if name not in named)
        wanted = [part for part in [*parts, rest] if part]
        if [(block.names, len(block.values)) for block in self.blocks] == [
            (part, count) for part in wanted
        ]:
            return
        device = next(iter(self.parameters.values())).device
        sizes = {name: prod(shape) for name, shape in self.shapes.items()}
        self.blocks = [Block(part, [sizes[n] for n in part], count, device) for part in wanted]
        for block in self.blocks:
            for name, values in block.views():
                shape = (count, *self.shapes[name]) if self.stacked else self.shapes[name]
                parameter = nn.Parameter(values.view(shape))
                block.parameters.append(parameter)
                owner, leaf = self._owners[name]
                setattr(owner, leaf, parameter)

    def _fitted(self, slot: int, name: str, value: Tensor) -> Tensor:
        shape = self.shapes[name]
        if value.shape != shape:
            self._own_shapes[slot][name] = value.shape
            value = zero_padded(value, shape)
        return value.reshape(-1)


def _corner(value: Tensor, shape: Sequence[int]) -> Tensor:
    return value[tuple(slice(size) for size in shape)].clone()


def zero_padded(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``value`` in the corner of zeros of ``shape``."""
    padded = value.new_zeros(tuple(shape))
    padded[tuple(slice(size) for size in value.shape)] = value
    return padded
