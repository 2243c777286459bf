"""How rewards of answers become advantages, as columns of the examples that a policy learns from.

Each reads one client's step: rewards are [prompts * samples, 2], helpful and safe, ``weight`` its
share of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.losses import Scale, gae, group_advantages
from airtune.learning.alignment.scoring import hidden_states


@dataclass(frozen=True)
class Drawn:
    """One client's answers of a step, and what was found of them.

    ``rewards`` [answers, 2]; ``reference`` [answers, longest] the tokens' log-probabilities under
    the reference, zero behind an answer's end.
    """

    answers: Answers
    rewards: Tensor
    reference: Tensor
    weight: float

    @property
    def quality(self) -> Tensor:
        """The client's own mixture of the rewards, [answers]."""
        return mixed(self.rewards, self.weight)


@dataclass(frozen=True)
class Credits:
    """Advantages as columns [answers, ...] and token columns [answers, longest], and notes."""

    columns: Mapping[str, Tensor] = field(default_factory=dict)
    token_columns: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, float] = field(default_factory=dict)


class Credit(Protocol):
    """A rule from rewards to advantages; equal ones let clients share passes.

    ``reads`` says whether it takes a pass over prompt and answer, which is charged.
    """

    reads: ClassVar[bool]

    def __call__(self, model: AdaptedModel, drawn: Drawn) -> Credits:
        """Return the advantages of one client's answers."""
        ...


def mixed(rewards: Tensor, weight: float) -> Tensor:
    """Return ``a helpful + (1 - a) safe`` of rewards [..., 2]."""
    return weight * rewards[..., 0] + (1.0 - weight) * rewards[..., 1]


@dataclass(frozen=True)
class Mixture:
    """GRPO on the client's own mixture: column ``advantage`` [answers]."""

    scale: Scale = "batch"
    reads: ClassVar[bool] = False

    def __call__(self, model: AdaptedModel, drawn: Drawn) -> Credits:
        """Return group-relative advantages of the mixed reward."""
        del model
        own = drawn.quality.view(1, -1, drawn.answers.samples)
        return Credits({"advantage": group_advantages(own, self.scale).flatten()})


@dataclass(frozen=True)
class Apart:
    """GRPO on each reward by itself: column ``advantages`` [answers, 2], for weights by gradients.

    Each is divided by its own deviation unless ``scale`` is none, so no reward outweighs the other
    by its units.
    """

    scale: Scale = "batch"
    reads: ClassVar[bool] = False

    def __call__(self, model: AdaptedModel, drawn: Drawn) -> Credits:
        """Return group-relative advantages of both rewards."""
        del model
        each = [
            group_advantages(reward.reshape(1, -1, drawn.answers.samples), self.scale).flatten()
            for reward in drawn.rewards.unbind(1)
        ]
        return Credits({"advantages": torch.stack(each, dim=1)})


@dataclass(frozen=True)
class Critic:
    """PPO: each token's advantage by GAE, column of tokens ``token_advantage``.

    A token is rewarded by ``-kl (log pi - log ref)``, the last one by the answer's quality too
    (arXiv 2404.13238 as specified; Ouyang et al. 2022). The critic is linear in what the frozen
    backbone makes of the tokens before, and in the place; it is fitted anew at each step, by ridge
    regression on the returns of one half of the prompts, and values the other half. So it never
    has seen the returns that it is compared with, and takes no training of its own (DERIVED, ours:
    the paper says PPO, and nothing of its critic). Advantages have zero mean and unit deviation
    over the client's tokens.
    """

    kl: float = 0.05
    gamma: float = 1.0
    lam: float = 1.0
    ridge: float = 1.0
    reads: ClassVar[bool] = True

    def __call__(self, model: AdaptedModel, drawn: Drawn) -> Credits:
        """Return advantages by GAE, and how much of the returns' variance the critic explains."""
        answers, mask = drawn.answers, drawn.answers.mask
        rewards = -self.kl * (answers.log_probs - drawn.reference) * mask
        last = mask.sum(1) - 1
        rewards[torch.arange(len(rewards)), last] += drawn.quality
        returns = discounted(rewards, self.gamma)
        values = self.values(hidden_states(model, answers), returns, answers)
        advantages, _ = gae(rewards, values, mask, self.gamma, self.lam)
        own = advantages[mask]
        advantages = (advantages - own.mean()) / (own.std() + 1e-8) * mask
        left = (returns - values)[mask].var() / returns[mask].var().clamp(min=1e-12)
        return Credits({}, {"token_advantage": advantages}, {"explained": float(1.0 - left)})

    def values(self, states: Tensor, returns: Tensor, answers: Answers) -> Tensor:
        """Return the value before each token, [answers, longest], from states [..., width]."""
        mask = answers.mask
        place = torch.arange(mask.shape[1], dtype=torch.float64) / max(mask.shape[1], 1)
        inputs = torch.cat(
            [states.double(), place.expand(mask.shape).unsqueeze(2)], dim=2
        )  # [answers, longest, width + 1]
        prompts = torch.arange(len(mask)) // answers.samples
        values = torch.zeros_like(returns)
        for half in (0, 1):
            rest = prompts % 2 != half
            if not rest.any():  # a single prompt: nobody else to learn from
                continue
            known = rest.unsqueeze(1) & mask
            weights = ridge(inputs[known], returns[known].double(), self.ridge)
            own = inputs[~rest]
            values[~rest] = (own @ weights[:-1] + weights[-1]).to(values.dtype)
        return values * mask


def ridge(inputs: Tensor, outputs: Tensor, strength: float) -> Tensor:
    """Return weights and, last, the constant of least squares, [width + 1], in double precision.

    Inputs [n, width] are scaled to unit variance; ``strength`` counts against their squares' sum as
    so many examples would. The constant is free.
    """
    centre, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-9)
    scaled = (inputs - centre) / scale
    gram = scaled.T @ scaled + strength * torch.eye(scaled.shape[1], dtype=scaled.dtype)
    weights = torch.linalg.solve(gram, scaled.T @ (outputs - outputs.mean())) / scale
    return torch.cat([weights, (outputs.mean() - centre @ weights).unsqueeze(0)])


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    """Return ``G_t = sum_k gamma^k r_{t+k}``, as ``rewards`` [answers, length]."""
    returns = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + gamma * running
        returns[:, t] = running
    return returns
