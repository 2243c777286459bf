"""A run's memory on disk: one file, replaced in one step, so that a kill never harms it."""

from __future__ import annotations

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
    save_file(tensors, temporary, metadata={"structure": structure})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)


def load(folder: Path) -> dict[str, Any] | None:
    """Return what was saved, None if nothing was; raise UserError if it cannot be read."""
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            structure = json.loads(file.metadata()["structure"])
            return _fill(structure, file)
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


def _fill(node: Any, file: Any) -> Any:
    if isinstance(node, list):
        return [_fill(value, file) for value in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        tensor: torch.Tensor = file.get_tensor(node[_TENSOR])
        return tensor
    return {key: _fill(value, file) for key, value in node["items"]}
