"""What clients keep between rounds: in memory up to a limit, the others in files."""

from __future__ import annotations

import copy
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.federation import checkpoint
from airtune.methods.views import State


class ClientStates:
    """The states of the clients that have one; a population of any size costs what was touched.

    States that changed are written together: one file for each checkpoint, more if memory does not
    hold what changes in between. A file goes when neither the last checkpoint nor a newer state
    needs it, so a killed run finds the states of its last checkpoint. Without a folder everything
    stays in memory.
    """

    def __init__(self, memory_bytes: float) -> None:
        self._memory_bytes = memory_bytes
        self._held: OrderedDict[int, State] = OrderedDict()  # the least recently used first
        self._held_bytes = 0
        self._changed: set[int] = set()
        # Client -> number of the file with its state: of the last version, of the checkpoint's.
        self._files: dict[int, int] = {}
        self._safe: dict[int, int] = {}
        self._folder: Path | None = None
        self._last_file = 0

    def open(self, folder: Path, index: Tensor | None) -> None:
        """Keep files in ``folder``, as ``index`` of the last checkpoint says (None: anew).

        Raises UserError if a file is missing.
        """
        if index is None:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.read_from(folder, index)
        self.clean()

    def read_from(self, folder: Path, index: Tensor | None) -> None:
        """Take states from ``folder`` and change nothing there; raise UserError as ``open``."""
        if index is not None and index.dim() != 2:
            raise UserError(
                f"'{folder.parent.parent}' is a run whose clients keep their states on their own "
                "devices; do there what you want of it, or continue it by the command that began "
                "it."
            )
        self._folder = folder
        self._held.clear()
        self._changed.clear()
        self._held_bytes = 0
        self._files = {} if index is None else dict(index.T.tolist())
        for number in set(self._files.values()):
            if not self._path(number).exists():
                raise UserError(
                    f"{self._path(number)} is missing, with states of clients that the checkpoint "
                    "needs; copy the whole run directory, or start again with another --out."
                )
        self._last_file = max(self._files.values(), default=0)

    def __contains__(self, client: int) -> bool:
        return client in self._held or client in self._files

    def __iter__(self) -> Iterator[int]:
        yield from sorted(self._held.keys() | self._files.keys())

    def get(self, client: int) -> State:
        """Return a copy of a client's state, empty if it has none."""
        if client in self._held:
            self._held.move_to_end(client)
        elif client in self._files:
            self._hold(client, _compact(self._read(client)))
        else:
            return {}
        state = copy.deepcopy(self._held[client])
        self._make_room()
        return state

    def put(self, client: int, state: State) -> None:
        """Keep a client's new state."""
        self._hold(client, _compact(state))
        self._changed.add(client)
        self._make_room()

    def write(self) -> Tensor:
        """Write what changed; return the index [2, clients] that a checkpoint needs to keep."""
        self._write_changed()
        return torch.tensor([list(self._files), list(self._files.values())], dtype=torch.int64)

    def clean(self) -> None:
        """Remove files that the last index does not name; call it once a checkpoint holds that."""
        self._safe = dict(self._files)
        self._remove_unnamed()

    def _hold(self, client: int, state: State) -> None:
        self._drop(client)
        self._held[client] = state
        self._held_bytes += _size(state)

    def _drop(self, client: int) -> None:
        if client in self._held:
            self._held_bytes -= _size(self._held.pop(client))

    def _make_room(self) -> None:
        if self._folder is None or self._held_bytes <= self._memory_bytes:
            return
        # Down to half, so that states which must be written first are written many at a time.
        self._evict(self._memory_bytes / 2)
        if self._held_bytes > self._memory_bytes:
            self._write_changed()
            self._remove_unnamed()
            self._evict(self._memory_bytes / 2)

    def _evict(self, until_bytes: float) -> None:
        """Forget states that files hold, the least recently used first."""
        for client in [client for client in self._held if client not in self._changed]:
            if self._held_bytes <= until_bytes:
                return
            self._drop(client)

    def _write_changed(self) -> None:
        if self._folder is None or not self._changed:
            return
        self._last_file += 1
        changed = {client: self._held[client] for client in sorted(self._changed)}
        checkpoint.save(self._path(self._last_file), changed)
        self._files |= dict.fromkeys(changed, self._last_file)
        self._changed.clear()

    def _remove_unnamed(self) -> None:
        if self._folder is not None:
            numbers = {*self._files.values(), *self._safe.values()}
            for file in set(self._folder.iterdir()) - set(map(self._path, numbers)):
                file.unlink()

    def _read(self, client: int) -> State:
        states = checkpoint.load(self._path(self._files[client]), str(client))
        assert states is not None
        state: State = states[client]
        return state

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:08d}.safetensors"


def _compact(node: Any) -> Any:
    """Return a copy whose tensors own their memory: a view would keep a whole cohort's alive."""
    if isinstance(node, Tensor):
        return node.detach().clone()
    if isinstance(node, dict):
        return {key: _compact(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_compact(value) for value in node]
    return node


def _size(node: Any) -> int:
    if isinstance(node, Tensor):
        return node.numel() * node.element_size()
    if isinstance(node, dict):
        return sum(_size(value) for value in node.values())
    if isinstance(node, list | tuple):
        return sum(_size(value) for value in node)
    return 32
