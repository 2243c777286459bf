"""Batches on the model's device, with hidden states where the frozen prefix is cached."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from airtune.learning.adapter import AdaptedModel
from airtune.learning.batches import Group
from airtune.learning.data.examples import Examples
from airtune.learning.prefix import PrefixCache


class Inputs:
    """What goes into the passes of one model."""

    def __init__(self, model: AdaptedModel, cache_bytes: float) -> None:
        """``cache_bytes`` are what hidden states may take in memory, 0: they are not cached."""
        self._device = model.device
        self._cache: PrefixCache | None = None
        if model.prefix is not None and cache_bytes > 0:
            self._cache = PrefixCache(model.prefix, cache_bytes, model.backbone.hidden)

    @property
    def seconds(self) -> float:
        """Time that the cache has taken to fill so far."""
        return 0.0 if self._cache is None else self._cache.seconds

    def prepare(self, examples: Examples, rows: np.ndarray) -> None:
        """Compute the hidden states of these rows of the examples' corpus that are missing."""
        if self._cache is not None and len(examples):
            self._cache.fill(examples, rows, self._device)

    def forget(self, examples: Examples) -> None:
        """Drop the hidden states of examples that will not be seen again."""
        if self._cache is not None:
            self._cache.forget(examples.corpus)

    def batch(self, group: Group) -> dict[str, Tensor]:
        """Return a group's batch on the device."""
        batch = group.corpus.batch(group.rows, group.length)
        if self._cache is not None:
            batch["hidden"] = self._cache.look_up(group.corpus, group.rows, group.length)
        if self._device.type == "cpu":
            return batch
        return {
            name: tensor.pin_memory().to(self._device, non_blocking=True)
            if self._device.type == "cuda"
            else tensor.to(self._device)
            for name, tensor in batch.items()
        }
