"""Policy optimisation as objectives of phases: one advantage for each answer, or two and a weight.

Batches hold answers with the columns ``advantage`` [rows] (or ``advantages`` [rows, 2]), and for
every token ``old`` and ``reference``: its log-probability under the policy that drew it, and under
the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from airtune.learning.alignment import losses
from airtune.learning.alignment.weights import anchored, min_norm, products
from airtune.learning.phase import Pass


@dataclass(frozen=True)
class Answered:
    """The answers of a pass, their tokens' log-probabilities and mask, [slots, rows, length]."""

    found: Tensor
    old: Tensor
    reference: Tensor
    mask: Tensor

    @classmethod
    def of(cls, step: Pass, temperature: float) -> Answered:
        """Run the model over a pass's answers, which were drawn at this temperature."""
        logits, labels = step.logits(), step.batch["labels"]
        found, mask = losses.answer_log_probs(logits, labels, temperature)
        shape = step.slots, -1, mask.shape[1]
        old, reference = (step.batch[name].view(shape) for name in ("old", "reference"))
        return cls(found.view(shape), old, reference, mask.view(shape))

    def loss(self, advantages: Tensor, clip: float, kl: float) -> Tensor:
        """Return PPO's clipped loss and the penalty on leaving the reference, [slots].

        Advantages are [slots * rows]; all tokens of an answer share one.
        """
        own = advantages.view(len(self.found), -1, 1)
        each = losses.clipped_surrogate(self.found, self.old, own, self.mask, clip)
        if kl > 0.0:
            each = each + kl * losses.kl_estimate(self.found, self.reference, self.mask)
        return losses.sequence_mean(each, self.mask)


@dataclass(frozen=True)
class Policy:
    """The objective of one reward, or of a fixed mixture: ``L(A) + kl KL``, [slots]."""

    clip: float = 0.2
    kl: float = 0.05
    temperature: float = 1.0

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]."""
        return Answered.of(step, self.temperature).loss(step.batch["advantage"], self.clip, self.kl)


@dataclass(frozen=True)
class TwoRewards:
    """The objective of two rewards whose weight the gradients decide: ``g u + (1 - g) v``.

    u and v are the gradients of ``L(A_j) + kl KL``, one backward pass each; the penalty counts once
    whatever the weight. ``mgda`` takes the shortest such direction (FOUND in kind; closed form),
    ``anchored`` is held to the client's constant ``preference`` by ``kappa``, relative to the mean
    squared gradient unless ``absolute`` (DERIVED; the relative form is ours).
    """

    rule: Literal["mgda", "anchored"]
    clip: float = 0.2
    kl: float = 0.05
    kappa: float = 1.0
    absolute: bool = False
    temperature: float = 1.0

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]; its gradient is the chosen direction."""
        answered = Answered.of(step, self.temperature)
        first, second = (
            answered.loss(advantages, self.clip, self.kl)
            for advantages in step.batch["advantages"].unbind(1)
        )
        u, v = step.gradients(first, again=True), step.gradients(second)
        found = products(*([each.flatten(1) for each in own.values()] for own in (u, v)))
        if self.rule == "mgda":
            g = min_norm(found)
        else:
            g = anchored(found, step.constants["preference"], self.kappa, not self.absolute)
        chosen = {}
        for name, own in u.items():
            part = g.view(-1, *[1] * (own.dim() - 1))
            chosen[name] = part * own + (1.0 - part) * v[name]
        return step.along(chosen, g * first + (1.0 - g) * second)
