"""Trained tensors put into the plain model that they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """``u + up(gelu(down(u)))``, u [..., width]; ``up`` is zero at the start."""

    def __init__(self, width: int, inner: int, bias: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner, bias), nn.Linear(inner, width, bias)

    def forward(self, u: Tensor) -> Tensor:
        """Return what is added to ``u``, and it, in its own type."""
        inner = nn.functional.gelu(self.down(u.to(self.down.weight.dtype)))
        return (u + self.up(inner)).to(u.dtype)


def in_layer(name: str) -> bool:
    """Return whether a module or tensor is in one of a list of layers."""
    return re.search(r"\.\d+\.", name) is not None


def narrow(owner: nn.Module, bottleneck: Bottleneck) -> None:
    """Send what ``owner`` puts out through a bottleneck, its submodule from now on."""
    owner.bottleneck = bottleneck
    owner.register_forward_hook(lambda module, args, y: bottleneck(y))


def attach(
    model: nn.Module, tensors: Mapping[str, Tensor], scale: float, wide: bool = True
) -> nn.Module:
    """Put trained tensors into a plain model; LoRA's products are multiplied by ``scale``.

    They stay float32 in a model of another type, and so does what they compute; those of layers
    that are not ``wide`` take the layers' type.
    """
    # LoRA is part of the map that it adapts, so it comes before the bottleneck behind that map.
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            path = name.removesuffix(".lora_A.weight")
            b = tensors[path + ".lora_B.weight"]
            _add_low_rank(model.get_submodule(path), a.shape, b.shape, scale)
    for name, down in tensors.items():
        if name.endswith(".bottleneck.down.weight"):
            path = name.removesuffix(".bottleneck.down.weight")
            bias = path + ".bottleneck.down.bias" in tensors
            narrow(model.get_submodule(path), Bottleneck(down.shape[1], down.shape[0], bias))
    device = next(model.parameters()).device
    plain = set()  # modules of the model itself
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        narrower = in_layer(name) and not wide
        dtype = getattr(owner, leaf).dtype if narrower else torch.float32
        setattr(owner, leaf, nn.Parameter(tensor.to(device, dtype), requires_grad=False))
        if not narrower and not re.search(r"\.(lora_[AB]|bottleneck)\.", name):
            plain.add(path)
    for path in sorted(plain):
        # Only a head's results stay float32: behind a layer there are others of the model's type.
        _widen(model.get_submodule(path), in_layer(path))
    return model


def attach_file(model: nn.Module, path: Path, scale: float, wide: bool) -> nn.Module:
    """Put the tensors of a file into a plain model."""
    return attach(model, load_file(path), scale, wide).eval()


def _widen(owner: nn.Module, back: bool) -> None:
    """Let a module compute in float32, and return results of its input's type if ``back``."""
    given: list[torch.dtype] = []

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given[:] = [args[0].dtype]
        return (args[0].float(), *args[1:])

    owner.register_forward_pre_hook(enter)
    if back:
        owner.register_forward_hook(lambda module, args, y: y.to(given[0]))


def _add_low_rank(owner: nn.Module, a: tuple[int, ...], b: tuple[int, ...], scale: float) -> None:
    owner.lora_A = down = nn.Linear(a[1], a[0], bias=False)
    owner.lora_B = up = nn.Linear(b[1], b[0], bias=False)
    owner.register_forward_hook(
        lambda module, args, y: (y + scale * up(down(args[0].float()))).to(y.dtype)
    )
