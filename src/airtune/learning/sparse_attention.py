"""Sparse attention in the layers that have adapters: a window, every s-th token, the first one.

Position i attends to position j <= i if ``i - j < window``, if ``stride`` divides j, or if j is 0
(that such layers are sparse is FOUND, this pattern is DERIVED). Positions count from a sequence's
first real token, so padding on either side changes nothing, and a token sees the same ones whether
it is sampled behind a cache or trained on. Strided positions are absolute: what has left the window
and is none of them is never looked at again.

The pattern is laid over a dense product, which is as large as before: what a device would save is
counted (``share_kept``), not timed. A model's own window or padding still holds.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.layers import path_of_layers

_MASKED = ("eager", "sdpa")  # implementations that give each layer a mask of all entries


def share_kept(length: int, window: int, stride: int | None = None) -> float:
    """Return the share of the ``length (length + 1) / 2`` causal entries that the pattern keeps."""
    place = np.arange(length)
    beyond = place - window  # the latest position behind the window
    further = np.ones(length) if stride is None else beyond // stride + 1
    kept = np.minimum(place + 1, window) + np.where(beyond >= 0, further, 0)
    return float(kept.sum() / (length * (length + 1) / 2))


def pattern(queries: Tensor, keys: Tensor, window: int, stride: int | None) -> Tensor:
    """Return which keys a query may see, [rows, queries, keys], from positions [rows, ...]."""
    distance = queries.unsqueeze(2) - keys.unsqueeze(1)
    landmark = keys == 0 if stride is None else keys % stride == 0
    return (distance >= 0) & ((distance < window) | landmark.unsqueeze(1))


def make_sparse(model: nn.Module, backbone: Backbone, window: int, stride: int | None) -> None:
    """Lay the pattern over the attention of those layers of ``model`` in which something trains.

    ``model`` has the backbone's structure; the backbone itself, the reference of alignment, stays
    dense. Raises UserError for models that are no decoders or give their layers no mask.
    """
    path = path_of_layers(backbone)
    if path is None:
        raise _refusal(backbone, "has no list of layers")
    layers = list(model.get_submodule(path))
    adapted = [layer for layer in layers if any(p.requires_grad for p in layer.parameters())]
    attention = getattr(backbone.module.config, "_attn_implementation", None)
    known = all("attention_mask" in _parameters(layer) for layer in adapted)
    if not known or attention not in _MASKED:
        raise _refusal(backbone, "does not give its layers a mask of all pairs of tokens")
    if _looks_ahead(model, layers[-1]):
        raise _refusal(backbone, "is an encoder, in which tokens see later ones")
    overlay = _Overlay(model.get_submodule(path.rpartition(".")[0]), window, stride)
    for layer in adapted:
        overlay.over(layer)


class _Overlay:
    """The pattern of a pass, made once for all of its layers."""

    def __init__(self, stack: nn.Module, window: int, stride: int | None) -> None:
        """``stack`` is the module that owns the layers: it is told which tokens are real."""
        self._window, self._stride = window, stride
        self._real: Tensor
        self._made: dict[tuple[int, int], Tensor] = {}
        place = _parameters(stack).index("attention_mask")

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            self._real = args[place] if place < len(args) else kwargs["attention_mask"]
            self._made = {}

        stack.register_forward_pre_hook(note, with_kwargs=True)

    def over(self, layer: nn.Module) -> None:
        """Add the pattern to the mask that ``layer`` is given."""
        place = _parameters(layer).index("attention_mask")

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            del module
            new = (args[0] if args else kwargs["hidden_states"]).shape[1]
            if place < len(args):
                return (*args[:place], self._added(args[place], new), *args[place + 1 :]), kwargs
            return args, {**kwargs, "attention_mask": self._added(kwargs["attention_mask"], new)}

        layer.register_forward_pre_hook(enter, with_kwargs=True)

    def _added(self, mask: Tensor | None, new: int) -> Tensor:
        """Return a layer's mask with the pattern in it: [rows, 1, new, keys], of its own type."""
        # No mask is sdpa's way to say causal, which the pattern is as well.
        seen = self._real.shape[1] if mask is None else mask.shape[-1]
        if (new, seen) not in self._made:
            places = self._real.long().cumsum(1) - 1
            queries, keys = places[:, -new:], places[:, -seen:]
            made = pattern(queries, keys, self._window, self._stride)
            self._made[new, seen] = made.unsqueeze(1)
        made = self._made[new, seen]
        if mask is None:
            return made
        if mask.dtype == torch.bool:
            return mask & made
        return mask.masked_fill(~made, torch.finfo(mask.dtype).min)


def _parameters(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


def _looks_ahead(model: nn.Module, last: nn.Module) -> bool:
    """Return whether a token's state depends on those behind it; found by two small passes."""
    states: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        states.append(output[0] if isinstance(output, tuple) else output)

    hook = last.register_forward_hook(keep)
    device = next(model.parameters()).device
    ones = torch.ones(1, 4, dtype=torch.long, device=device)
    with torch.inference_mode():
        for end in (1, 2):
            tokens = torch.tensor([[1, 1, 1, end]], device=device)
            model(input_ids=tokens, attention_mask=ones)
    hook.remove()
    first, second = (each[0, :3].float() for each in states)
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-6)


def _refusal(backbone: Backbone, reason: str) -> UserError:
    return UserError(
        f"adapter.attention_window: '{backbone.name}' {reason}; leave it out, or name a decoder "
        "such as GPT-2 or Llama."
    )
