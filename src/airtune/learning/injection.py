"""What trains, put into a copy of a frozen backbone's structure."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import peft
import torch
from torch import nn

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.bottleneck import add_bottlenecks, find_places
from airtune.learning.config import AdapterConfig, Task
from airtune.learning.layers import chosen_layers, named_layers

_PREFIX = "base_model.model."
_HEADS = ("classifier", "score")  # in transformers' classification classes


def inject(
    backbone: Backbone,
    config: AdapterConfig,
    task: Task,
    seed: int,
    ranks: Mapping[str, int] | None = None,
) -> nn.Module:
    """Return the backbone with fresh adapters; ``seed`` fixes their initial values.

    Matrices in ``ranks`` have another rank of LoRA than usual. Raises UserError for what does not
    fit the model, before it takes memory.
    """
    places = find_places(backbone, config) if config.has_bottleneck else {}
    if not config.has_lora and config.kind != "ia3":
        model = backbone.structure_copy()
        layers = named_layers(backbone, config) if config.kind == "blocks" else ()
        _train(model, [*layers, *_head_modules(model, backbone, task)])
        add_bottlenecks(model, places, config, seed)
        return model.eval()
    settings = _peft_config(backbone, config, task, ranks or {})
    if config.has_lora:
        _check_lora(_with_peft(backbone, config, settings, seed, empty=True), config)
    model = _with_peft(backbone, config, settings, seed)
    add_bottlenecks(model, {_PREFIX + name: n for name, n in places.items()}, config, seed)
    return model.eval()


def tensor_name(parameter_name: str) -> str:
    """Return a parameter's name as peft saves it, without the wrapper's prefix."""
    return (
        matrix_name(parameter_name).replace(".modules_to_save.default", "").replace(".default", "")
    )


def matrix_name(module_name: str) -> str:
    """Return a module's name in the backbone."""
    return module_name.removeprefix(_PREFIX)


def _train(model: nn.Module, modules: Iterable[str]) -> None:
    """Let all weights of these modules train: parameters of their own around the same numbers."""
    for name in modules:
        for module in model.get_submodule(name).modules():
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, leaf, nn.Parameter(parameter.detach()))


def _head_modules(model: nn.Module, backbone: Backbone, task: Task) -> list[str]:
    """Return the modules that train beside the adapters: those that they do beside peft's."""
    usual = _HEADS if task == "classification" and not backbone.frozen_head else ()
    ends = (*backbone.fresh, *usual)
    return [name for name, _ in model.named_modules() if ends and name.endswith(ends)]


def _with_peft(
    backbone: Backbone,
    config: AdapterConfig,
    settings: peft.PeftConfig,
    seed: int,
    empty: bool = False,
) -> nn.Module:
    """Return the backbone with peft's adapters; ``empty`` ones have shapes but no memory."""
    copy = backbone.structure_copy()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft notes that a plain module has no hub config
        torch.manual_seed(keyed.integer(seed, "adapter"))
        try:
            with torch.device("meta") if empty else nullcontext():
                model: nn.Module = peft.get_peft_model(copy, settings, low_cpu_mem_usage=empty)
        except ValueError as error:
            keys = "targets" if config.top_layers is None else "targets or top_layers"
            raise UserError(f"adapter.{keys}: {_targets_advice(copy, error)}") from error
    return model


def _peft_config(
    backbone: Backbone, config: AdapterConfig, task: Task, ranks: Mapping[str, int]
) -> peft.PeftConfig:
    kind: str | None = "SEQ_CLS" if task == "classification" else "CAUSAL_LM"
    if backbone.frozen_head:
        kind = None  # else peft would train whatever is called a classifier
    shared: dict[str, Any] = {
        "task_type": kind,
        "target_modules": config.targets,
        "modules_to_save": list(backbone.fresh) or None,
        "base_model_name_or_path": backbone.source,
    }
    if config.kind == "ia3":
        if config.targets is not None:
            shared["feedforward_modules"] = []
        return peft.IA3Config(**shared)
    if config.top_layers is not None:
        shared["layers_to_transform"] = list(chosen_layers(backbone, config))
    scale = config.alpha / config.rank
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        rank_pattern=dict(ranks),
        alpha_pattern={matrix: scale * rank for matrix, rank in ranks.items()},  # one scale for all
        **shared,
    )


def _check_lora(model: nn.Module, config: AdapterConfig) -> None:
    for name, module in model.named_modules():
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        width = min(module.in_features, module.out_features)
        if config.rank > width:
            raise UserError(
                f"adapter.rank: {config.rank} is above the width {width} of "
                f"'{matrix_name(name)}'; give at most {width}."
            )
        if config.has_bottleneck and not isinstance(module, peft.tuners.lora.Linear):
            raise UserError(
                f"adapter.targets: with {config.kind} LoRA adapts linear maps, and "
                f"'{matrix_name(name)}' is none; leave it out, or use lora."
            )


def _targets_advice(model: nn.Module, error: ValueError) -> str:
    linear = {
        name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    return f"{str(error).splitlines()[0]} This model's linear modules: {', '.join(sorted(linear))}."
