"""Two losses of a pass become one: by a client's fixed weight, or by one that gradients decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

from airtune.learning.alignment.weights import anchored, min_norm, products, squared_length
from airtune.learning.phase import Pass

Rule = Literal["fixed", "split", "mgda", "anchored"]
Gradients = Mapping[str, Tensor]
PREFERENCE = "preference"  # the constant of a phase that is a client's weight a of the first loss


@dataclass(frozen=True)
class TwoLosses:
    """``g u + (1 - g) v`` of the losses' gradients u and v, for each slot.

    ``fixed``: g is the client's ``preference`` a. ``mgda``: the shortest such direction (FOUND in
    kind; closed form). ``anchored``: the same, held to a by ``kappa`` (DERIVED; its unit, the mean
    squared gradient, is ours). ``split``: g is a for tensors
    that the patterns ``private`` name and ``common`` for all others, so that clients pull what
    they share in one direction and personalise what is theirs (ours). All but the first take one
    backward pass for each loss. With ``equal_length`` the gradient of mgda and anchored is
    stretched to the length of that with weight a (ours): under plain descent a shortest direction
    also is a short step. Steps of Adam hardly depend on the gradient's length.
    """

    rule: Rule
    kappa: float = 1.0
    equal_length: bool = False
    private: tuple[str, ...] = ()
    common: float = 0.5

    def __call__(self, step: Pass, first: Tensor, second: Tensor) -> Tensor:
        """Return one loss of each slot, [slots], whose gradient is the chosen direction."""
        if self.rule == "fixed":
            a = step.constants[PREFERENCE]
            return a * first + (1.0 - a) * second
        u, v = step.gradients(first, again=True), step.gradients(second)
        if self.rule == "split":
            return self._split(step, first, second, u, v)
        found = products(*([each.flatten(1) for each in own.values()] for own in (u, v)))
        if self.rule == "mgda":
            g = min_norm(found)
        else:
            g = anchored(found, step.constants[PREFERENCE], self.kappa)
        stretch = g.new_ones(g.shape)
        if self.equal_length:
            wanted = squared_length(found, step.constants[PREFERENCE])
            own = squared_length(found, g)
            stretch = (wanted / own.clamp(min=1e-30)).sqrt().to(g.dtype)
        chosen = {}
        for name, each in u.items():
            shape = -1, *[1] * (each.dim() - 1)
            part = g.view(shape)
            chosen[name] = (part * each + (1.0 - part) * v[name]) * stretch.view(shape)
        return step.along(chosen, g * first + (1.0 - g) * second)

    def _split(
        self, step: Pass, first: Tensor, second: Tensor, u: Gradients, v: Gradients
    ) -> Tensor:
        a = step.constants[PREFERENCE]
        chosen = {}
        for name, each in u.items():
            own = any(fnmatchcase(name, pattern) for pattern in self.private)
            g = a if own else torch.full_like(a, self.common)
            part = g.view(-1, *[1] * (each.dim() - 1))
            chosen[name] = part * each + (1.0 - part) * v[name]
        return step.along(chosen, a * first + (1.0 - a) * second)
