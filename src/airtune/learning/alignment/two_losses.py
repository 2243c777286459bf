"""Two losses of a pass become one: by a client's fixed weight, or by one that gradients decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from airtune.learning.alignment.weights import anchored, min_norm, products, squared_length
from airtune.learning.phase import Pass

Rule = Literal["fixed", "mgda", "anchored"]
PREFERENCE = "preference"  # the constant of a phase that is a client's weight a of the first loss


@dataclass(frozen=True)
class TwoLosses:
    """``g u + (1 - g) v`` of the losses' gradients u and v, for each slot.

    ``fixed``: g is the client's ``preference`` a. ``mgda``: the shortest such direction (FOUND in
    kind; closed form). ``anchored``: the same, held to a by ``kappa``, relative to the mean squared
    gradient unless ``absolute`` (DERIVED; the relative form is ours). The last two take one
    backward pass for each loss. With ``equal_length`` their direction is stretched to the length of
    that with weight a (ours): a shortest direction is short, and who steps less unlearns less.
    """

    rule: Rule
    kappa: float = 1.0
    absolute: bool = False
    equal_length: bool = False

    def __call__(self, step: Pass, first: Tensor, second: Tensor) -> Tensor:
        """Return one loss of each slot, [slots], whose gradient is the chosen direction."""
        if self.rule == "fixed":
            a = step.constants[PREFERENCE]
            return a * first + (1.0 - a) * second
        u, v = step.gradients(first, again=True), step.gradients(second)
        found = products(*([each.flatten(1) for each in own.values()] for own in (u, v)))
        if self.rule == "mgda":
            g = min_norm(found)
        else:
            g = anchored(found, step.constants[PREFERENCE], self.kappa, not self.absolute)
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
