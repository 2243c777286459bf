"""The part of a backbone below every trainable tensor: computed once per text, then looked up."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
        self._model, self.first = model, first
        self.parameters = sum(p.numel() for layer in layers[:first] for p in layer.parameters())
        self.width, self.dtype = 0, torch.float32  # of the states, once they have been seen
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
        states = prefix.compute({"input_ids": probe, "attention_mask": probe})
    prefix.width, prefix.dtype = states.shape[-1], states.dtype
    for hook in hooks:
        hook.remove()
    return None if used else prefix


def _layer(name: str) -> str:
    """Return the module that is called where a parameter is used: peft's layer, or its owner."""
    adapter = re.search(r"\.(?:lora|ia3)_", name)
    return name[: adapter.start()] if adapter else name.rpartition(".")[0]


@dataclass
class States:
    """Hidden states [tokens, width] of a corpus; which of its texts have any, and of which block.

    ``known`` are those of this run, [texts]; ``blocks`` names the texts among which each was
    computed, in this run or an earlier one.
    """

    values: Tensor
    known: np.ndarray
    blocks: np.ndarray
    mapped: bool = False  # from a file


Earlier = dict[tuple[object, ...], States]  # by the first layer that trains, and the texts


class PrefixCache:
    """Hidden states of the texts seen so far, in memory up to a limit, then in a mapped file.

    A text's states are computed among texts of its own client, 32 of similar length at a time: a
    function of that client's data, so a run that is resumed trains on the same bytes. What is in
    memory stays with the backbone, and the next run in this process copies what it would compute
    among the same texts.
    """

    def __init__(self, prefix: FrozenPrefix, memory_bytes: float, earlier: Earlier) -> None:
        """``earlier`` are the backbone's states of other runs, to which those of this one go."""
        self.prefix, self._memory_bytes, self._earlier = prefix, memory_bytes, earlier
        self.seconds = 0.0  # spent on computing states
        self._in_memory = 0
        self._states: dict[int, States] = {}
        self._tokens: list[np.ndarray] = []  # keeps the keys alive

    def fill(self, examples: Examples, rows: np.ndarray, device: torch.device) -> None:
        """Compute the states of ``rows`` of the corpus, which belong to ``examples``."""
        corpus = examples.corpus
        states = self._of(corpus)
        if states.known[rows].all():
            return
        needed = np.zeros(len(corpus.lengths), dtype=bool)
        needed[rows] = True
        alone = examples.select(examples.rows.reshape(-1))
        for positions in alone.by_length(_FILL_ROWS):
            block = alone.rows[positions]
            if needed[block].any() and not states.known[block].all():
                name = _name(block)
                if (states.blocks[block] != name).any():
                    self._compute(corpus, block, alone.batch(positions), device)
                states.known[block], states.blocks[block] = True, name

    def look_up(self, corpus: Corpus, rows: np.ndarray, length: int) -> Tensor:
        """Return hidden states [rows, length, width]; what stands at padding is of no effect."""
        places, _ = corpus.places(rows, length)
        return self._of(corpus).values[torch.from_numpy(places)]

    def _of(self, corpus: Corpus) -> States:
        if id(corpus.tokens) not in self._states:
            self._states[id(corpus.tokens)] = self._make(corpus)
            self._tokens.append(corpus.tokens)
        return self._states[id(corpus.tokens)]

    def _make(self, corpus: Corpus) -> States:
        """Return room for the states of a corpus, with those of an earlier run in it."""
        texts = len(corpus.lengths)
        known, blocks = np.zeros(texts, dtype=bool), np.zeros(texts, dtype=np.uint64)
        shape, dtype = (len(corpus.tokens), self.prefix.width), self.prefix.dtype
        size = shape[0] * shape[1] * dtype.itemsize
        if self._in_memory + size > self._memory_bytes:
            return States(_mapped(shape, dtype), known, blocks, mapped=True)
        self._in_memory += size
        key = self._key(corpus)
        before = self._earlier.pop(key, None)
        # Other texts' states go, the oldest first: what is kept for later runs has that limit, too.
        while self._earlier and self._kept() + size > self._memory_bytes:
            del self._earlier[next(iter(self._earlier))]
        # A copy: the run that made them may go on.
        made = (
            States(torch.empty(shape, dtype=dtype), known, blocks)
            if before is None
            else States(before.values.clone(), known, before.blocks.copy())
        )
        self._earlier[key] = made
        return made

    def forget(self, corpus: Corpus) -> None:
        """Drop the states of a corpus that will not be seen again."""
        states = self._states.pop(id(corpus.tokens), None)
        if states is None:
            return
        self._tokens = [tokens for tokens in self._tokens if tokens is not corpus.tokens]
        if self._earlier.get(self._key(corpus)) is states:
            del self._earlier[self._key(corpus)]
        if not states.mapped:
            self._in_memory -= states.values.numel() * states.values.itemsize

    def _key(self, corpus: Corpus) -> tuple[object, ...]:
        # How far a block is padded decides its states' last digits.
        return self.prefix.first, corpus.cap, corpus.pad, _digest(corpus)

    def _kept(self) -> int:
        return sum(e.values.numel() * e.values.itemsize for e in self._earlier.values())

    def _compute(
        self, corpus: Corpus, rows: np.ndarray, batch: Mapping[str, Tensor], device: torch.device
    ) -> None:
        started = time.perf_counter()
        with torch.inference_mode():
            moved = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            hidden = self.prefix.compute(moved).cpu()
        places, real = corpus.places(rows, hidden.shape[1])
        values = self._of(corpus).values
        values[torch.from_numpy(places[real])] = hidden[torch.from_numpy(real)]
        self.seconds += time.perf_counter() - started


def _digest(corpus: Corpus) -> bytes:
    digest = hashlib.blake2b(corpus.tokens.tobytes(), digest_size=16)
    digest.update(corpus.offsets.tobytes())
    return digest.digest()


def _name(block: np.ndarray) -> np.uint64:
    """Return a number, not zero, that tells a block of rows from others."""
    digest = hashlib.blake2b(block.astype(np.int64).tobytes(), digest_size=8).digest()
    return np.frombuffer(digest, dtype=np.uint64)[0] | np.uint64(1)


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
