"""A bias on the logits of classes that a client's model has and that never trains.

An adapter may carry, beside the tensors that train, ``logits.bias`` [classes]: the model's logits
are the head's plus this. It is no trainable tensor, so it is in no upload and no private state;
an export adds it to the bias of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

_LEAST, _MOST, _HALVINGS = 1e-3, 1e4, 60  # of the concentration, and how exactly it is found

LABEL_BIAS = "logits.bias"


def absorbed(adapter: Mapping[str, Tensor], head_bias: str | None) -> dict[str, Tensor]:
    """Return an adapter without label bias, which the tensor ``head_bias`` has if there is one."""
    plain = {name: tensor for name, tensor in adapter.items() if name != LABEL_BIAS}
    if LABEL_BIAS in adapter and head_bias is not None:
        plain[head_bias] = plain[head_bias] + adapter[LABEL_BIAS]
    return plain


class LabelBiases:
    """The biases of the adapters that are loaded, [slots, classes]; None where none has one."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None

    def load(self, adapters: Sequence[Mapping[str, Tensor]]) -> None:
        """Use the biases of these adapters; those without one among others have zeros."""
        found = [adapter.get(LABEL_BIAS) for adapter in adapters]
        some = next((bias for bias in found if bias is not None), None)
        self._rows = None
        if some is not None:
            rows = [torch.zeros_like(some) if bias is None else bias for bias in found]
            self._rows = torch.stack(rows)

    def added(self, logits: Tensor, slots: Tensor | None) -> Tensor:
        """Return logits [S * rows, classes] with the bias of each row's slot.

        ``slots`` are those of the pass, None: all in order.
        """
        if self._rows is None:
            return logits
        self._rows = self._rows.to(logits.device)
        rows = self._rows if slots is None else self._rows[slots]
        return logits + rows.repeat_interleave(len(logits) // len(rows), dim=0)


def label_bias(counts: np.ndarray, own: float) -> Tensor:
    """Return ``log(C (own p + (1 - own) / C))`` for counts of C classes, [C].

    With it a model that was trained on evenly mixed classes answers as is best where a share
    ``own`` of the texts has the client's mix p of classes and the others have them evenly (Bayes'
    rule under shifted labels: Saerens et al. 2002). p is the posterior mean of
    :func:`concentration`; no class loses more than ``log(1 - own)``.
    """
    a, classes = concentration(counts), len(counts)
    mix = (counts + a) / (counts.sum() + classes * a)
    return torch.from_numpy(np.log(classes * own * mix + (1.0 - own))).float()


def concentration(counts: np.ndarray) -> float:
    """Return a, with which Dirichlet-multinomial counts of C classes are likeliest.

    Found where ``sum_c sum_{i < n_c} 1 / (a + i) = sum_{i < N} C / (C a + i)`` between 0.001 and
    10,000: there is one such place at most (Levin and Reeds 1977). Even counts, and fewer than two,
    give the most, for they tell of no mix.
    """
    classes, total = len(counts), int(counts.sum())
    seen = np.arange(1, max(total, 1))
    # More than i texts are of this many classes.
    larger = classes - np.searchsorted(np.sort(counts), seen, side="right")

    def slope(a: float) -> float:
        first = (max(int((counts > 0).sum()), 1) - 1) / a
        return first + float((larger / (a + seen) - 1.0 / (a + seen / classes)).sum())

    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(float(np.exp(middle))) >= 0.0 else (low, middle)
    return float(np.exp(low))
