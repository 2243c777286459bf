"""Modules with tensors per slot: what stands in a model for a module that many clients train."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from airtune.learning.shifts import Shift


@dataclass
class ActiveSlots:
    """Which slots the rows of the current forward pass belong to; None means all, in order.

    While ``rows`` says how many rows a pass has, ``mixed`` notes an input that has another number:
    then it cannot be divided among slots (DeBERTa sends its table of relative positions along).
    """

    indices: Tensor | None = None
    rows: int | None = None
    mixed: bool = False

    def divide(self, x: Tensor, slots: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return inputs [slots * rows, ..., width] as [slots, rows * ..., width]."""
        self.mixed |= self.rows is not None and len(x) != self.rows
        return x.to(dtype).reshape(slots, -1, width)


@dataclass
class Tap:
    """While ``open``, what the last pass had between an adapter's factors, A x, is kept.

    ``read`` is [slots, rows * length, rank].
    """

    open: bool = False
    read: Tensor | None = None


class SlotLinear(nn.Module):
    """A linear map with one weight [S, out, in] (and bias [S, out]) per slot.

    The weight of transformers' Conv1D (GPT-2) is [S, in, out]. Results are of the weight's type, or
    with ``back`` of the input's.
    """

    def __init__(self, linear: nn.Linear | Conv1D, active: ActiveSlots, back: bool = False) -> None:
        super().__init__()
        self._back = back
        self._turned = isinstance(linear, Conv1D)
        sizes = linear.weight.shape if isinstance(linear, Conv1D) else linear.weight.shape[::-1]
        self.in_features, self.out_features = sizes
        self._thin = 1 in sizes
        self.weight = nn.Parameter(linear.weight.detach().float().unsqueeze(0))
        bias = None
        if linear.bias is not None:
            bias = nn.Parameter(linear.bias.detach().float().unsqueeze(0))
        self.register_parameter("bias", bias)
        self._active = active
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows [S * rows, ..., in] to [S * rows, ..., out]."""
        weight = self.active(self.weight)
        rows = self.divide(x, weight)
        matrix = weight if self._turned else weight.mT
        bias = None if self.bias is None else self.active(self.bias).unsqueeze(1)
        if self._thin:
            rows, matrix = paired(rows, 2), paired(paired(matrix, 1), 2)
            bias = None if bias is None else paired(bias, 2)
        y = torch.bmm(rows, matrix) if bias is None else torch.baddbmm(bias, rows, matrix)
        y = y[..., : self.out_features].reshape(*x.shape[:-1], self.out_features)
        return y.to(x.dtype) if self._back else y

    def divide(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return inputs slot by slot, in the type of the active ``weight``."""
        return self._active.divide(x, len(weight), self.in_features, weight.dtype)

    def active(self, parameter: nn.Parameter) -> Tensor:
        """Return what of a parameter belongs to the rows of the current pass."""
        return parameter if self._active.indices is None else parameter[self._active.indices]


def paired(x: Tensor, dim: int) -> Tensor:
    """Return ``x`` with zeros beside what stands alone along ``dim``.

    A product with a vector takes another kernel for one slot than for several, and its sums another
    order; a product with a matrix of two columns does not.
    """
    return x if x.shape[dim] > 1 else torch.cat([x, torch.zeros_like(x)], dim)


def low_rank(
    base: Callable[[Tensor], Tensor],
    down: SlotLinear,
    up: SlotLinear,
    scale: float,
    tap: Tap,
    shift: Shift,
) -> Callable[..., Tensor]:
    """Return ``x -> base(x) + x shift^T + scale * up(down(x))``, each sum in its product."""
    thin = down.out_features == 1

    def forward(x: Tensor, *ignored: object, **options: object) -> Tensor:
        y = base(x)
        a, b = down.active(down.weight), up.active(up.weight)
        rows = down.divide(x, a)
        start = y.to(b.dtype).view(b.shape[0], -1, up.out_features)
        if shift.weight is not None:
            moved = torch.addmm(start.flatten(0, 1), rows.flatten(0, 1), shift.weight.mT)
            start = moved.view(start.shape)
        if thin:
            a, b = paired(a, 1), paired(b, 2)
        inner = torch.bmm(rows, a.mT)
        if tap.open:
            tap.read = inner[..., :1] if thin else inner
        sum_ = torch.baddbmm(start, inner, b.mT, alpha=scale)
        return sum_.view(y.shape).to(y.dtype)

    return forward


class SlotNorm(nn.Module):
    """A norm ``y = n(x) (c + w) + b`` with w (and b) per slot, [S, width].

    ``n`` is the module itself with constant weights; c is 0, or 1 in models that learn the
    difference from 1 (Gemma). The product and the sum are rounded once each, as a plain module's
    fused kernel may not do: results differ from it in the last digit, not among cohorts.
    """

    def __init__(self, norm: nn.Module, offset: float, active: ActiveSlots) -> None:
        super().__init__()
        own = {name: p.detach().float().unsqueeze(0) for name, p in norm.named_parameters()}
        self.weight = nn.Parameter(own["weight"])
        bias = nn.Parameter(own["bias"]) if "bias" in own else None
        self.register_parameter("bias", bias)
        self.width = self.weight.shape[1]
        self._unit, self._offset, self._active = _unit(norm, offset), offset, active
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Norm rows [S * rows, ..., width], in float32, and return them in their own type."""
        weight = self.active(self.weight) + self._offset
        unit = self._unit(x.to(weight.dtype))
        rows = self._active.divide(unit, len(weight), self.width, weight.dtype)
        y = rows * weight.unsqueeze(1)
        if self.bias is not None:
            y = y + self.active(self.bias).unsqueeze(1)
        return y.view(x.shape).to(x.dtype)

    def active(self, parameter: nn.Parameter) -> Tensor:
        """Return what of a parameter belongs to the rows of the current pass."""
        return parameter if self._active.indices is None else parameter[self._active.indices]


def slot_module(
    module: nn.Module, active: ActiveSlots, whole: bool = False, back: bool = False
) -> nn.Module | None:
    """Return the form of ``module`` with tensors per slot, None if it has none.

    Linear maps have one; with ``whole`` so have Conv1D and norms. ``back`` says that what follows
    expects the input's type.
    """
    if type(module) is nn.Linear or (whole and type(module) is Conv1D):
        return SlotLinear(module, active, back)
    offset = _offset(module) if whole else None
    return None if offset is None else SlotNorm(module, offset, active)


def _unit(norm: nn.Module, offset: float) -> nn.Module:
    """Return a norm with constant weights, ``n`` of :class:`SlotNorm`, in float32."""
    unit = copy.deepcopy(norm).float().requires_grad_(False)
    for name, parameter in unit.named_parameters():
        parameter.fill_(1.0 - offset if name == "weight" else 0.0)
    return unit


def _offset(module: nn.Module) -> float | None:
    """Return c if ``module`` is a norm such as :class:`SlotNorm` has, found by trying it."""
    own = dict(module.named_parameters())
    if "weight" not in own or not own.keys() <= {"weight", "bias"}:
        return None
    shape = own["weight"].shape
    if len(shape) != 1 or any(p.shape != shape for p in own.values()):
        return None
    device = own["weight"].device
    draw = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*s, *shape, generator=draw).to(device) for s in ((2, 3), (), ()))

    def tried(weight: Tensor, bias: Tensor) -> Tensor:
        given = {"weight": weight, "bias": bias}
        y: Tensor = functional_call(module, {name: given[name] for name in own}, (x,))
        return y

    none, one = torch.zeros_like(w), torch.ones_like(w)
    with torch.no_grad():
        try:
            offset = 0.0 if not tried(none, none).any() else 1.0
            unit = tried(one - offset, none)
            wanted = unit * (w + offset) + (b if "bias" in own else 0.0)
            alike = torch.allclose(tried(w, b), wanted, atol=1e-4)
        except (RuntimeError, ValueError, TypeError):  # it takes other inputs
            return None
    return offset if alike and unit.shape == x.shape else None
