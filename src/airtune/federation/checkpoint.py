"""A run's memory on disk: one file, replaced in one step, so that a kill never harms it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from airtune.errors import UserError

_FILE = "state.safetensors"
_TENSOR = "tensor"


def save(folder: Path, tree: dict[str, Any]) -> None:
    """Write nested dictionaries of tensors, numbers, strings and lists; durable when it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_strip(tree, "", tensors))
    temporary = folder / f"{_FILE}.tmp"
    metadata = {"structure": structure, "digest": _digest(structure, tensors)}
    save_file(tensors, temporary, metadata=metadata)
    _sync(temporary)
    temporary.replace(folder / _FILE)
    _sync(folder)  # or the new name may not survive a power cut


def load(folder: Path) -> dict[str, Any] | None:
    """Return what was saved, None if nothing was; raise UserError if it cannot be read."""
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            structure, digest = file.metadata()["structure"], file.metadata()["digest"]
        if digest != _digest(structure, tensors):
            raise ValueError("its digest does not match")
        tree: dict[str, Any] = _fill(json.loads(structure), tensors)
        return tree
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: this checkpoint is corrupt ({error}); start again with another --out, or "
            "delete the run directory."
        ) from error


def _strip(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        # A copy, as safetensors refuses tensors that share memory.
        tensors[path] = node.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(node, dict):
        # Keys may be integers (clients) or strings; both come back as they were.
        items = [[key, _strip(value, f"{path}/{key}", tensors)] for key, value in node.items()]
        return {"items": items}
    if isinstance(node, list | tuple):
        return [_strip(value, f"{path}/{i}", tensors) for i, value in enumerate(node)]
    return node


def _fill(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_fill(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        return tensors[node[_TENSOR]]
    return {key: _fill(value, tensors) for key, value in node["items"]}


def _digest(structure: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(structure.encode(), digest_size=16)
    for name in sorted(tensors):
        if tensors[name].numel():
            flat = tensors[name].contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
