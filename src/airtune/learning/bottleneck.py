"""Bottleneck adapters (Houlsby et al. 2019) in a frozen backbone.

``u <- u + W_up gelu(W_dn u + b) + b'`` behind the output projections of attention and MLP, before
the residual sum. The library ``adapters`` has them too, but pins transformers 4 (1.3.0: ~=4.57.6).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.config import AdapterConfig
from airtune.learning.layers import named_layers
from airtune.learning.standalone import Bottleneck, narrow

_SPREAD = 0.02  # of the first down-projections


def find_places(backbone: Backbone, config: AdapterConfig) -> dict[str, int]:
    """Return the maps that are followed by a bottleneck, and their width; found by a small pass.

    They are the last linear map that is called in a layer's attention, and the last one called in
    the layer. Raises UserError where there are no two such maps of the model's width, or where
    they are narrower than the bottleneck.
    """
    module = backbone.structure_copy()
    width = int(backbone.module.config.get_text_config().hidden_size)
    places = {}
    for layer, (attention, last) in _last_maps(module, named_layers(backbone, config)).items():
        for what, name in (("attention", attention), ("MLP behind the attention", last)):
            if name is None or _width(module.get_submodule(name)) != width:
                raise UserError(
                    f"adapter.kind: {config.kind} has its adapters behind the output projections "
                    f"of attention and MLP, and in '{layer}' of '{backbone.name}' no linear map "
                    f"of width {width} ends the {what}; use lora."
                )
            places[name] = width
    if config.bottleneck is not None and config.bottleneck > width:
        raise UserError(
            f"adapter.bottleneck: {config.bottleneck} is above the model's width {width}; give at "
            f"most {width}, better a small part of it."
        )
    return places


def add_bottlenecks(
    model: nn.Module, places: Mapping[str, int], config: AdapterConfig, seed: int
) -> None:
    """Put bottlenecks behind these maps of ``model``; its results are at first as before.

    Down-projections are normal, from a generator of the ``seed``'s; all else is zero.
    """
    draw = torch.Generator().manual_seed(keyed.integer(seed, "bottleneck"))
    for name, width in places.items():
        owner = model.get_submodule(name)
        bottleneck = Bottleneck(width, config.bottleneck or 0, bool(config.bottleneck_bias))
        with torch.no_grad():
            for parameter in bottleneck.parameters():
                parameter.zero_()
            bottleneck.down.weight.normal_(std=_SPREAD, generator=draw)
        narrow(owner, bottleneck.to(next(owner.parameters()).device))


def _last_maps(
    model: nn.Module, layers: Collection[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Return the last linear map called in each layer's attention, and behind it, by layer."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for layer in layers
        for name, module in model.get_submodule(layer).named_modules(prefix=layer)
        if isinstance(module, nn.Linear | Conv1D)
    ]
    probe = torch.ones(1, 8, dtype=torch.long, device=next(model.parameters()).device)
    with torch.inference_mode():
        model(input_ids=probe, attention_mask=probe)
    for hook in hooks:
        hook.remove()
    found: dict[str, tuple[str | None, str | None]] = {}
    for layer in layers:
        own = [name for name in called if name.startswith(f"{layer}.")]
        attention: list[str] = []
        for part in _attentions(model.get_submodule(layer), layer):
            attention = attention or [name for name in own if f"{name}.".startswith(f"{part}.")]
        behind = own[-1:] if own[-1:] != attention[-1:] else []
        found[layer] = (next(iter(attention[-1:]), None), next(iter(behind), None))
    return found


def _attentions(layer: nn.Module, prefix: str) -> Iterator[str]:
    """Yield the names of a layer's attention modules, outer ones first."""
    for name, _ in layer.named_modules(prefix=prefix):
        if name != prefix and "att" in name.rpartition(".")[2].lower():
            yield name


def _width(module: nn.Module) -> int:
    return int(module.nf if isinstance(module, Conv1D) else module.out_features)
