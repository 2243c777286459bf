"""Policy optimisation as objectives of phases: one advantage for each answer or token, or two.

Batches hold answers with a column ``advantage`` [rows], or ``token_advantage`` for every token, or
``advantages`` [rows, 2]; and for every token ``old`` and ``reference``: its log-probability under
the policy that drew it, and under the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from airtune.learning.alignment import losses
from airtune.learning.alignment.two_losses import TwoLosses
from airtune.learning.phase import Pass


@dataclass(frozen=True)
class Answered:
    """The answers of a pass, their tokens' log-probabilities and mask, [slots, rows, length].

    ``entropy`` [slots, rows, length] of the predictions of these tokens, None if not asked for.
    """

    found: Tensor
    old: Tensor
    reference: Tensor
    mask: Tensor
    entropy: Tensor | None

    @classmethod
    def of(cls, step: Pass, temperature: float, entropy: bool = False) -> Answered:
        """Run the model over a pass's answers, which were drawn at this temperature."""
        logits, labels = step.logits(), step.batch["labels"]
        found, mask = losses.answer_log_probs(logits, labels, temperature)
        shape = step.slots, -1, mask.shape[1]
        old, reference = (step.batch[name].view(shape) for name in ("old", "reference"))
        spread = None
        if entropy:
            each = losses.entropy(logits.float() / temperature)
            spread = torch.nn.functional.pad(each[:, :-1], (1, 0)).view(shape)
        return cls(found.view(shape), old, reference, mask.view(shape), spread)

    def loss(self, advantages: Tensor, clip: float, kl: float, entropy: float = 0.0) -> Tensor:
        """Return PPO's clipped loss and the penalty on leaving the reference, [slots].

        Advantages are [slots * rows], where all tokens of an answer share one, or
        [slots * rows, length].
        """
        own = advantages.view(*self.found.shape[:2], -1)
        each = losses.clipped_surrogate(self.found, self.old, own, self.mask, clip)
        if kl > 0.0:
            each = each + kl * losses.kl_estimate(self.found, self.reference, self.mask)
        if self.entropy is not None:
            each = each - entropy * self.entropy
        return losses.sequence_mean(each, self.mask)


@dataclass(frozen=True)
class Policy:
    """The objective of one reward, or of a fixed mixture: ``L(A) + kl KL - entropy H``, [slots]."""

    clip: float = 0.2
    kl: float = 0.05
    temperature: float = 1.0
    entropy: float = 0.0

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]."""
        column = "advantage" if "advantage" in step.batch else "token_advantage"
        answered = Answered.of(step, self.temperature, self.entropy > 0.0)
        return answered.loss(step.batch[column], self.clip, self.kl, self.entropy)


@dataclass(frozen=True)
class TwoRewards:
    """The objective of two rewards whose weight the gradients decide: ``g u + (1 - g) v``.

    u and v are the gradients of ``L(A_j) + kl KL``, one backward pass each; the penalty counts once
    whatever the weight.
    """

    weighing: TwoLosses
    clip: float = 0.2
    kl: float = 0.05
    temperature: float = 1.0
    entropy: float = 0.0

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]; its gradient is the chosen direction."""
        answered = Answered.of(step, self.temperature, self.entropy > 0.0)
        first, second = (
            answered.loss(advantages, self.clip, self.kl, self.entropy)
            for advantages in step.batch["advantages"].unbind(1)
        )
        return self.weighing(step, first, second)
