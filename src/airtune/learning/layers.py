"""A model's transformer layers, from the top."""

from __future__ import annotations

from torch import nn

from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.config import AdapterConfig


def chosen_layers(backbone: Backbone, config: AdapterConfig) -> range:
    """Return which layers have adapters; raise UserError for more than the model has."""
    count = int(backbone.module.config.get_text_config().num_hidden_layers)
    wanted = count if config.top_layers is None else config.top_layers
    if wanted > count:
        raise UserError(
            f"adapter.top_layers: {wanted} asked for, but this model has {count} layers; give at "
            f"most {count}."
        )
    return range(count - wanted, count)


def named_layers(backbone: Backbone, config: AdapterConfig) -> dict[str, nn.Module]:
    """Return the layers that have adapters, by name, from below.

    Raises UserError where the model has no list of them.
    """
    path = path_of_layers(backbone)
    if path is None:
        count = int(backbone.module.config.get_text_config().num_hidden_layers)
        raise UserError(
            f"adapter.kind: {config.kind} needs a list of the model's {count} layers, and "
            f"'{backbone.name}' has none; use lora."
        )
    names = [f"{path}.{i}" for i in chosen_layers(backbone, config)]
    return {name: backbone.module.get_submodule(name) for name in names}


def path_of_layers(backbone: Backbone) -> str | None:
    """Return the name of the largest list of as many modules as the model has layers, if any."""
    count = int(backbone.module.config.get_text_config().num_hidden_layers)
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in backbone.module.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    return max(lists, key=lambda name: lists[name]) if lists else None
