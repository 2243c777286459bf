"""Many clients' adapters side by side on one frozen backbone.

A batch holds the rows of S clients, slot after slot, [S * rows, ...]. Each trainable linear map is
replaced by one with a weight per slot, [S, out, in], applied by one batched product, so that a
slot's weights see that slot's rows only. Optimisers are elementwise; so S slots train as S separate
runs would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class ActiveSlots:
    """Which slots the rows of the current forward pass belong to; None means all, in order."""

    indices: Tensor | None = None


class SlotLinear(nn.Module):
    """A linear map with one weight [S, out, in] (and bias [S, out]) per slot."""

    def __init__(self, linear: nn.Linear, active: ActiveSlots) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().unsqueeze(0))
        bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().unsqueeze(0))
        self.register_parameter("bias", bias)
        self._active = active

    def forward(self, x: Tensor) -> Tensor:
        """Map rows [S * rows, ..., in] to [S * rows, ..., out]."""
        weight, bias = self.weight, self.bias
        if self._active.indices is not None:
            weight = weight[self._active.indices]
            bias = None if bias is None else bias[self._active.indices]
        rows = x.reshape(weight.shape[0], -1, self.in_features)
        if bias is None:
            y = torch.bmm(rows, weight.mT)
        else:
            y = torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
        return y.view(*x.shape[:-1], self.out_features)


class Slots:
    """The trainable tensors of a model, one copy per slot, loaded from and read as dictionaries."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        """``names`` maps each trainable parameter's name in ``model`` to its name as a tensor."""
        self._active = ActiveSlots()
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        for parameter_name, name in names.items():
            path, _, leaf = parameter_name.rpartition(".")
            self._owners[name] = (model.get_submodule(path), leaf)
        owners = {id(owner): owner for owner, _ in self._owners.values()}
        self.stacked = all(type(owner) is nn.Linear for owner in owners.values())
        if self.stacked:
            replaced = {
                key: SlotLinear(owner, self._active)
                for key, owner in owners.items()
                if isinstance(owner, nn.Linear)
            }
            for parent in list(model.modules()):
                for child_name, child in list(parent.named_children()):
                    if id(child) in replaced:
                        setattr(parent, child_name, replaced[id(child)])
            self._owners = {
                name: (replaced[id(owner)], leaf) for name, (owner, leaf) in self._owners.items()
            }
        self.shapes = {
            name: tuple(parameter.shape[1:] if self.stacked else parameter.shape)
            for name, parameter in self.parameters.items()
        }

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by tensor name: [S, ...], or [...] where kinds allow no slots."""
        return {name: getattr(owner, leaf) for name, (owner, leaf) in self._owners.items()}

    def load(self, adapters: Sequence[Mapping[str, Tensor]]) -> None:
        """Fill as many slots as there are adapters."""
        if not self.stacked and len(adapters) != 1:
            raise ValueError("this adapter kind trains one client at a time.")
        for name, (owner, leaf) in self._owners.items():
            device = getattr(owner, leaf).device
            if self.stacked:
                value = torch.stack([adapter[name] for adapter in adapters])
            else:
                value = adapters[0][name].clone()
            setattr(owner, leaf, nn.Parameter(value.to(device)))

    def read(self) -> list[dict[str, Tensor]]:
        """Return a copy of each slot's adapter, on the CPU."""
        values = {name: value.detach().cpu() for name, value in self.parameters.items()}
        if not self.stacked:
            return [{name: value.clone() for name, value in values.items()}]
        count = len(next(iter(values.values())))
        return [{name: value[s].clone() for name, value in values.items()} for s in range(count)]

    @contextmanager
    def only(self, indices: Tensor | None) -> Iterator[None]:
        """Within, the rows of a forward pass belong to these slots."""
        self._active.indices = indices
        try:
            yield
        finally:
            self._active.indices = None
