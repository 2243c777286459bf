"""Adapters on a frozen backbone, trained in slots and saved for others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from airtune.learning.backbone import Backbone
from airtune.learning.config import AdapterConfig, Task
from airtune.learning.injection import inject, matrix_name, tensor_name
from airtune.learning.low_rank import factors, matrices
from airtune.learning.prefix import find_prefix
from airtune.learning.projections import Taps
from airtune.learning.shifts import absorbed, shifts
from airtune.learning.slot_modules import Tap, low_rank
from airtune.learning.slots import Slots
from airtune.learning.sparse_attention import make_sparse
from airtune.learning.standalone import in_layer

Adapter = dict[str, Tensor]
TENSORS = "adapter.safetensors"
_ACTIVATION_BYTES = 2e9  # on a CPU


class AdaptedModel:
    """One backbone with the slots of a cohort; the only object that runs forward passes."""

    def __init__(self, backbone: Backbone, config: AdapterConfig, task: Task, seed: int) -> None:
        """Inject the adapter; ``seed`` fixes its initial values."""
        self.backbone, self.config, self.task = backbone, config, task
        self._seed = seed
        self.module = inject(backbone, config, task, seed)
        names = {
            name: tensor_name(name)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        }
        self.slots = Slots(self.module, names, whole=not config.is_peft)
        self.initial: Adapter = self.slots.initial
        self.taps: dict[str, Tap] = {}  # of the adapted maps, in the order of the model
        for name, module in self.module.named_modules() if self.slots.stacked else ():
            if isinstance(module, peft.tuners.lora.Linear):
                # peft's own forward, without its choices between adapters and variants.
                down, up = module.lora_A["default"], module.lora_B["default"]
                scale, tap = module.scaling["default"], Tap()
                matrix = matrix_name(name)
                self.taps[matrix] = tap
                shift = self.slots.shifts.place(matrix, self.device)
                module.forward = low_rank(module.base_layer, down, up, scale, tap, shift)
        # The injected layers are all that an adapter needs; peft's wrapper around the model has
        # nothing to add to a pass but time.
        wrapped = isinstance(self.module, peft.PeftModel)
        self.plain = inner = self.module.get_base_model() if wrapped else self.module
        self.prefix = find_prefix(self.module, names)
        if config.attention_window is not None:
            make_sparse(inner, backbone, config.attention_window, config.attention_stride)
        self._forward: Callable[..., Any] = inner
        # Only generation reads a cache of keys and values; to keep one in training is waste.
        caches = "use_cache" in inspect.signature(inner.forward).parameters
        self._options = {"use_cache": False} if caches else {}
        # Whole layers without slots compute in the backbone's type: any module can do that.
        self.rounds = config.kind == "blocks" and not self.slots.stacked
        if self.rounds and backbone.dtype != "float32":
            self._forward = self._rounded(inner, [name for name in names if in_layer(name)])
        self.side_by_side = self.slots.stacked and self._divides_among_slots()

    def compile(self) -> None:
        """Run forward passes through torch.compile from now on."""
        self._forward = torch.compile(self._forward)

    @property
    def head_names(self) -> list[str]:
        """Names of the tensors of modules that the checkpoint left untrained."""
        return [n for n in self.slots.shapes if n.startswith(tuple(self.backbone.fresh or ("\0",)))]

    @property
    def head_bias(self) -> str | None:
        """Name of the tensor that is added to the logits of classes, None if no such one trains."""
        ends = [
            name
            for name, shape in self.slots.shapes.items()
            if "classifier" in name and name.endswith("bias") and shape == (self.width,)
        ]
        return ends[-1] if ends and self.task == "classification" else None

    def _rounded(self, inner: nn.Module, names: Iterable[str]) -> Callable[..., Any]:
        """Return passes in which these parameters are of the backbone's type."""
        dtype: torch.dtype = getattr(torch, self.backbone.dtype)

        def forward(**inputs: Any) -> Any:
            rounded = {name: inner.get_parameter(name).to(dtype) for name in names}
            return functional_call(inner, rounded, kwargs=inputs)

        return forward

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
        return self.slots.biased(output.logits)

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
        """Write ``adapter`` as a peft adapter directory; shifts become components of LoRA.

        Kinds that peft does not have are written as tensors by name, ``adapter.safetensors``.
        """
        if shifts(adapter):
            adapter = absorbed(adapter, self.scale)
        ranks = {matrix: factors(adapter, matrix).rank for matrix in matrices(adapter)}
        ranks = {matrix: rank for matrix, rank in ranks.items() if rank != self.config.rank}
        if not self.config.is_peft:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.detach().clone() for name, tensor in adapter.items()}
            save_file(tensors, folder / TENSORS)
            return
        model = inject(self.backbone, self.config, self.task, self._seed, ranks)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # Not copied into it: the head of a bfloat16 checkpoint would round it.
                parameter.data = adapter[tensor_name(name)].clone()
        model.save_pretrained(folder, save_embedding_layers=False)
