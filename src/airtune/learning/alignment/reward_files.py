"""Reward models as safetensors files: their tensors, and what these belong to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.pooled import PooledClassifier

_SAID = {"tokenizer", "backbone", "reading", "mean", "deviation"}


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds: tensors by name, and the scale of the rewards."""

    tensors: Mapping[str, Tensor]
    mean: float
    deviation: float


def to_bytes(stored: Stored, backbone: Backbone) -> bytes:
    """Return the file of a reward model that reads texts with ``backbone``."""
    about = {
        "tokenizer": fingerprint(backbone.tokenizer),
        "backbone": backbone.name,
        "reading": reading(backbone),
        "mean": repr(stored.mean),
        "deviation": repr(stored.deviation),
    }
    return save({n: t.contiguous() for n, t in stored.tensors.items()}, metadata=about)


def read(path: str | Path, backbone: Backbone) -> Stored:
    """Return what a file holds; raise UserError if it does not belong to ``backbone``.

    The shapes of its tensors are the caller's to check.
    """
    file = Path(path).expanduser()
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{path}' cannot be read as a reward model: {error}.") from error
    scale = [_number(about.get(key, "")) for key in ("mean", "deviation")]
    if not set(about) >= _SAID or not all(map(math.isfinite, scale)) or scale[1] <= 0:
        raise UserError(f"'{path}' holds no reward model; give a file that one was written to.")
    if about["tokenizer"] != fingerprint(backbone.tokenizer):
        raise UserError(
            f"'{path}' was trained on tokens of '{about['backbone']}', and "
            f"'{backbone.name}' has another tokenizer; use it with its own model, or train "
            "one on these tokens."
        )
    # Models of one family have the same tokens and widths, but not the same features.
    own = backbone.name, reading(backbone)
    if (about["backbone"], about["reading"]) != own:
        raise UserError(
            f"'{path}' reads texts by the {about['reading']} of '{about['backbone']}', and here "
            f"they are read by the {own[1]} of '{own[0]}'; use it with its own model, or train "
            "one for this."
        )
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"'{path}' has a tensor '{name}' that is not finite; train it anew.")
    return Stored(tensors, *scale)


def reading(backbone: Backbone) -> str:
    """Return how a reward model reads a text: causal models are read by the mean."""
    module = backbone.module
    if isinstance(module, PooledClassifier):
        return f"{module.pooling} state{' of unit norm' if module.normalise else ''}"
    return "classification head" if module.get_output_embeddings() is None else "mean state"


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what tells tokenizers apart: a digest of their vocabulary and special tokens."""
    known = [sorted(tokenizer.get_vocab().items()), tokenizer.bos_token_id, tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
