"""Adapters of peft's kinds on a frozen backbone, trained in slots and saved as peft saves them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.config import AdapterConfig, Task
from airtune.learning.low_rank import factors
from airtune.learning.prefix import find_prefix
from airtune.learning.projections import Taps
from airtune.learning.shifts import absorbed, shifts
from airtune.learning.slots import Slots, Tap, low_rank

Adapter = dict[str, Tensor]
_PREFIX = "base_model.model."
_ACTIVATION_BYTES = 2e9  # on a CPU


class AdaptedModel:
    """One backbone with the slots of a cohort; the only object that runs forward passes."""

    def __init__(self, backbone: Backbone, config: AdapterConfig, task: Task, seed: int) -> None:
        """Inject the adapter; ``seed`` fixes its initial values."""
        self.backbone, self.config, self.task = backbone, config, task
        self._seed = seed
        self.module = self._inject()
        names = {
            name: _tensor_name(name)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        }
        self.slots = Slots(self.module, names)
        self.initial: Adapter = self.slots.initial
        self.taps: dict[str, Tap] = {}  # of the adapted maps, in the order of the model
        for name, module in self.module.named_modules() if self.slots.stacked else ():
            if isinstance(module, peft.tuners.lora.Linear):
                # peft's own forward, without its choices between adapters and variants.
                down, up = module.lora_A["default"], module.lora_B["default"]
                scale, tap = module.scaling["default"], Tap()
                matrix = name.removeprefix(_PREFIX)
                self.taps[matrix] = tap
                shift = self.slots.shifts.place(matrix, self.device)
                module.forward = low_rank(module.base_layer, down, up, scale, tap, shift)
        self.prefix = find_prefix(self.module, names)
        # The injected layers are all that an adapter needs; peft's wrapper around the model has
        # nothing to add to a pass but time.
        inner = self.module.get_base_model()
        self._forward: Callable[..., Any] = inner
        # Only generation reads a cache of keys and values; to keep one in training is waste.
        caches = "use_cache" in inspect.signature(inner.forward).parameters
        self._options = {"use_cache": False} if caches else {}
        self.side_by_side = self.slots.stacked and self._divides_among_slots()

    def compile(self) -> None:
        """Run forward passes through torch.compile from now on."""
        self._forward = torch.compile(self._forward)

    @property
    def head_names(self) -> list[str]:
        """Names of the tensors of modules that the checkpoint left untrained."""
        return [n for n in self.slots.shapes if n.startswith(tuple(self.backbone.fresh or ("\0",)))]

    def _divides_among_slots(self) -> bool:
        """Return whether adapters see nothing but the rows of a batch; found by a small pass."""
        probe = torch.ones(3, 8, dtype=torch.long, device=self.device)
        with torch.inference_mode():
            return self.slots.divides(
                lambda: self.logits({"input_ids": probe, "attention_mask": probe}), rows=3
            )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    @property
    def scale(self) -> float:
        """What LoRA's products are multiplied by, alpha / r."""
        return self.config.alpha / self.config.rank

    @property
    def width(self) -> int:
        """Entries of a prediction's logits: classes, or the vocabulary."""
        if self.task == "causal":
            return int(self.backbone.module.config.get_text_config().vocab_size)
        return int(
            self.backbone.module.config.num_labels
            if self.backbone.pooling == "native"
            else self.backbone.module.classifier.out_features
        )

    @property
    def tokens_per_pass(self) -> int:
        """Tokens whose activations, by a rough count, fit into the memory set aside for them."""
        config = self.backbone.module.config.get_text_config()
        width, layers, vocabulary = (
            getattr(config, key, 0) for key in ("hidden_size", "num_hidden_layers", "vocab_size")
        )
        # Per layer about 34 values of the width (Korthikanti et al. 2022); logits three times.
        values = 34 * width * layers + 3 * vocabulary * (self.task == "causal")
        room = _ACTIVATION_BYTES
        if self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2
        return max(1, int(room / (4 * max(values, 1))))

    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return logits: [rows, classes], or [rows, length, vocabulary] of a causal model.

        A batch with ``hidden`` starts from these states instead of the tokens' embeddings.
        """
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if "hidden" in batch and self.prefix is not None:
            with self.prefix.given(batch["hidden"]):
                output = self._forward(**inputs, **self._options)
        else:
            output = self._forward(**inputs, **self._options)
        logits: Tensor = output.logits
        return logits

    def tapped_logits(self, batch: Mapping[str, Tensor], taps: Taps) -> tuple[Tensor, Tensor]:
        """Return logits, and the projections A x pooled over each text, [rows, taps, rank]."""
        opened = [self.taps[name] for name in taps.names(list(self.taps))]
        for tap in opened:
            tap.open = True
        try:
            logits = self.logits(batch)
            reads = [tap.read for tap in opened if tap.read is not None]
        finally:
            for tap in opened:
                tap.open, tap.read = False, None
        mask = batch["attention_mask"]
        return logits, torch.stack([taps.pooled(read, mask) for read in reads], dim=1)

    def save(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        """Write ``adapter`` as a peft adapter directory; shifts become components of LoRA."""
        ranks = {}
        if shifted := shifts(adapter):
            adapter = absorbed(adapter, self.scale)
            ranks = {matrix: factors(adapter, matrix).rank for matrix in shifted}
        model = self._inject(ranks)
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                # Not copied into it: the head of a bfloat16 checkpoint would round it.
                parameter.data = adapter[_tensor_name(name)].clone()
        model.save_pretrained(folder, save_embedding_layers=False)

    def _inject(self, ranks: Mapping[str, int] | None = None) -> nn.Module:
        """Return the backbone with fresh adapters, of other ``ranks`` than usual where given."""
        copy = self.backbone.structure_copy()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft notes that a plain module has no hub config
            torch.manual_seed(keyed.integer(self._seed, "adapter"))
            try:
                model = peft.get_peft_model(copy, self._peft_config(ranks or {}))
            except ValueError as error:
                keys = "targets" if self.config.top_layers is None else "targets or top_layers"
                raise UserError(f"adapter.{keys}: {_targets_advice(copy, error)}") from error
        _check_rank(model, self.config)
        return model.eval()

    def _peft_config(self, ranks: Mapping[str, int]) -> peft.PeftConfig:
        task: str | None = "SEQ_CLS" if self.task == "classification" else "CAUSAL_LM"
        if self.backbone.frozen_head:
            task = None  # else peft would train whatever is called a classifier
        shared: dict[str, Any] = {
            "task_type": task,
            "target_modules": self.config.targets,
            "modules_to_save": list(self.backbone.fresh) or None,
            "base_model_name_or_path": self.backbone.source,
        }
        if self.config.kind == "ia3":
            if self.config.targets is not None:
                shared["feedforward_modules"] = []
            return peft.IA3Config(**shared)
        if self.config.top_layers is not None:
            count = self.backbone.module.config.get_text_config().num_hidden_layers
            if self.config.top_layers > count:
                raise UserError(
                    f"adapter.top_layers: {self.config.top_layers} asked for, but this model has "
                    f"{count} layers; give at most {count}."
                )
            shared["layers_to_transform"] = list(range(count - self.config.top_layers, count))
        alphas = {matrix: self.scale * rank for matrix, rank in ranks.items()}
        return peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            rank_pattern=dict(ranks),
            alpha_pattern=alphas,  # so that every map keeps the one scale
            **shared,
        )


def _tensor_name(parameter_name: str) -> str:
    """Return a parameter's name as peft saves it, without the wrapper's prefix."""
    return (
        parameter_name.removeprefix(_PREFIX)
        .replace(".modules_to_save.default", "")
        .replace(".default", "")
    )


def _check_rank(model: nn.Module, config: AdapterConfig) -> None:
    if config.kind != "lora":
        return
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.Linear):
            width = min(module.in_features, module.out_features)
            if config.rank > width:
                raise UserError(
                    f"adapter.rank: {config.rank} is above the width {width} of "
                    f"'{name.removeprefix(_PREFIX)}'; give at most {width}."
                )


def _targets_advice(model: nn.Module, error: ValueError) -> str:
    linear = {
        name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    return f"{str(error).splitlines()[0]} This model's linear modules: {', '.join(sorted(linear))}."
