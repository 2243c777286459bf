"""Trees of tensors and numbers in files that are replaced in one step: a kill never harms one."""

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

_TENSOR = "tensor"


def save(path: Path, tree: dict[Any, Any]) -> None:
    """Write nested dictionaries of tensors, numbers, strings and lists; durable when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    branches = {}
    for key, branch in tree.items():
        own: dict[str, Tensor] = {}
        structure = json.dumps([key, _strip(branch, str(key), own)])
        branches[str(key)] = json.dumps({"structure": structure, "digest": _digest(structure, own)})
        tensors |= own
    temporary = path.with_name(f"{path.name}.tmp")
    save_file(tensors, temporary, metadata=branches)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)  # or the new name may not survive a power cut


def load(path: Path, only: str | None = None) -> dict[Any, Any] | None:
    """Return what was saved (or one branch of it), None if nothing was.

    Raises UserError if it cannot be read or is not what was written.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            branches = file.metadata()
            wanted = branches if only is None else [only]
            return dict(_branch(file, json.loads(branches[name])) for name in wanted)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: this checkpoint is corrupt or of another version ({error}); start again with "
            "another --out, or delete the run directory."
        ) from error


def _branch(file: Any, saved: dict[str, str]) -> tuple[Any, Any]:
    key, structure = json.loads(saved["structure"])
    tensors = {name: file.get_tensor(name) for name in _names(structure)}
    if saved["digest"] != _digest(saved["structure"], tensors):
        raise ValueError("its digest does not match")
    return key, _fill(structure, tensors)


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


def _names(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for value in node for name in _names(value)]
    if not isinstance(node, dict):
        return []
    if _TENSOR in node:
        return [node[_TENSOR]]
    return [name for _, value in node["items"] for name in _names(value)]


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
