"""The part of a backbone below every trainable tensor: computed once per text, then looked up."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from airtune.errors import UserError
from airtune.learning.data.examples import Corpus, Examples

_FILL_ROWS = 32
_DISK_SHARE = 0.9  # of the free disk; to run out of it under a mapping would kill the process


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """The forward pass has come to the first layer that trains."""


class FrozenPrefix:
    """Runs a model up to its first trainable layer, or from there on.

    The model still computes its embeddings, masks and positions; layers below the first trainable
    one pass their input on, and that one receives the hidden states that it would have.
    """

    def __init__(self, model: nn.Module, layers: nn.ModuleList, first: int) -> None:
        self._model = model
        self._given: Tensor | None = None
        self._stop = False
        for layer in layers[:first]:
            self._make_skippable(layer)
        layers[first].register_forward_pre_hook(self._enter, with_kwargs=True)

    def compute(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the hidden states [rows, length, width] that enter the first trainable layer."""
        self._stop = True
        try:
            self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        except _Reached as reached:
            hidden: Tensor = reached.args[0]
            return hidden
        finally:
            self._stop = False
        raise RuntimeError("the forward pass did not come to its first trainable layer.")

    @contextmanager
    def given(self, hidden: Tensor) -> Iterator[None]:
        """Within, a forward pass starts from ``hidden``."""
        self._given = hidden
        try:
            yield
        finally:
            self._given = None

    def _make_skippable(self, layer: nn.Module) -> None:
        whole: Callable[..., Any] = layer.forward
        outputs = 0  # some model classes return (hidden, ...): how many there are

        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal outputs
            if self._given is None:
                output = whole(hidden_states, *args, **kwargs)
                outputs = len(output) if isinstance(output, tuple) else 0
                return output
            return (hidden_states, *[None] * (outputs - 1)) if outputs else hidden_states

        layer.forward = forward

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del module
        if self._stop:
            raise _Reached(args[0] if args else kwargs["hidden_states"])
        if self._given is None:
            return None
        if args:
            return (self._given, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._given}


def find_prefix(model: nn.Module, trained: Iterable[str]) -> FrozenPrefix | None:
    """Return the part of ``model`` below the parameters named in ``trained``, None without one.

    What lies below is found by running: nothing that trains may be used before the first layer in
    which something trains is reached, and nothing may be in training mode (dropout).
    """
    places = [match for name in trained if (match := re.match(r"(.*?)\.(\d+)\.", name))]
    paths = {match[1] for match in places}
    first = min((int(match[2]) for match in places), default=0)
    if len(paths) != 1 or first == 0 or any(module.training for module in model.modules()):
        return None
    layers = model.get_submodule(paths.pop())
    if not isinstance(layers, nn.ModuleList):
        return None
    prefix = FrozenPrefix(model, layers, first)
    used: list[nn.Module] = []
    owners = [model.get_submodule(path) for path in {_layer(name) for name in trained}]
    # Called after the prefix's own hook, which ends the pass: only what lies below is noted.
    hooks = [o.register_forward_pre_hook(lambda module, _: used.append(module)) for o in owners]
    probe = torch.ones(1, 8, dtype=torch.long, device=next(model.parameters()).device)
    with torch.inference_mode():
        prefix.compute({"input_ids": probe, "attention_mask": probe})
    for hook in hooks:
        hook.remove()
    return None if used else prefix


def _layer(name: str) -> str:
    """Return the module that is called where a parameter is used: peft's layer, or its owner."""
    adapter = re.search(r"\.(?:lora|ia3)_", name)
    return name[: adapter.start()] if adapter else name.rpartition(".")[0]


class PrefixCache:
    """Hidden states of the texts seen so far, in memory up to a limit, then in a mapped file.

    A text's states are computed among texts of its own client, 32 of similar length at a time: a
    function of that client's data, so a run that is resumed trains on the same bytes.
    """

    def __init__(self, prefix: FrozenPrefix, memory_bytes: float) -> None:
        self.prefix, self._memory_bytes = prefix, memory_bytes
        self.seconds = 0.0  # spent on computing states
        self._in_memory = 0
        self._states: dict[int, Tensor] = {}
        self._known: dict[int, np.ndarray] = {}
        self._tokens: list[np.ndarray] = []  # keeps the keys alive

    def fill(self, examples: Examples, rows: np.ndarray, device: torch.device) -> None:
        """Compute the states of ``rows`` of the corpus, which belong to ``examples``."""
        corpus = examples.corpus
        known = self._known.get(id(corpus.tokens))
        if known is not None and known[rows].all():
            return
        needed = np.zeros(len(corpus.lengths), dtype=bool)
        needed[rows] = True
        alone = examples.select(examples.rows.reshape(-1))
        for positions in alone.by_length(_FILL_ROWS):
            block = alone.rows[positions]
            known = self._known.get(id(corpus.tokens))
            if needed[block].any() and not (known is not None and known[block].all()):
                self._compute(corpus, block, alone.batch(positions), device)

    def look_up(self, corpus: Corpus, rows: np.ndarray, length: int) -> Tensor:
        """Return hidden states [rows, length, width]; what stands at padding is of no effect."""
        places, _ = corpus.places(rows, length)
        return self._states[id(corpus.tokens)][torch.from_numpy(places)]

    def _compute(
        self, corpus: Corpus, rows: np.ndarray, batch: Mapping[str, Tensor], device: torch.device
    ) -> None:
        started = time.perf_counter()
        with torch.inference_mode():
            moved = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            hidden = self.prefix.compute(moved).cpu()
        key = id(corpus.tokens)
        if key not in self._states:
            shape = (len(corpus.tokens), hidden.shape[-1])
            size = shape[0] * shape[1] * hidden.dtype.itemsize
            fits = self._in_memory + size <= self._memory_bytes
            self._in_memory += size * fits
            self._states[key] = (
                torch.empty(shape, dtype=hidden.dtype) if fits else _mapped(shape, hidden.dtype)
            )
            self._known[key] = np.zeros(len(corpus.lengths), dtype=bool)
            self._tokens.append(corpus.tokens)
        places, real = corpus.places(rows, hidden.shape[1])
        self._states[key][torch.from_numpy(places[real])] = hidden[torch.from_numpy(real)]
        self._known[key][rows] = True
        self.seconds += time.perf_counter() - started


def _mapped(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return uninitialised room for states, mapped from a temporary file."""
    size = shape[0] * shape[1]
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size * dtype.itemsize > _DISK_SHARE * free:
        raise UserError(
            f"machine.prefix_cache_gb: {size * dtype.itemsize / 1e9:.1f} GB of hidden states fit "
            f"neither into memory nor into {tempfile.gettempdir()} ({free / 1e9:.1f} GB free); "
            "raise it, name another folder by TMPDIR, or give 0 to do without the cache."
        )
    folder = Path(tempfile.mkdtemp(prefix="airtune-prefix-"))
    try:
        mapped = torch.from_file(str(folder / "states"), shared=True, size=size, dtype=dtype)
    finally:
        # The mapping keeps the file's pages; its name can go at once, so nothing is left behind.
        shutil.rmtree(folder, ignore_errors=True)
    return mapped.view(shape)
