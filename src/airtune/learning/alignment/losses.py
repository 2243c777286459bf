"""Losses of alignment on tensors; what is averaged is averaged for each client apart, [slots].

Tensors of tokens are [slots, rows, length] with a ``mask`` of the same shape that is True where a
token of an answer stands; what stands elsewhere, infinities and NaN included, has no effect on a
value or a gradient. Functions of tokens return values for each token, of which ``sequence_mean``
makes losses. Sums run over a slot's own values, so a slot's loss has the same bytes whoever stands
beside it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from airtune.learning.data.examples import IGNORED

Scale = Literal["group", "batch", "none"]
_SMALLEST_DEVIATION = 1e-4  # added to a deviation before dividing by it, as TRL does


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_reference: Tensor,
    rejected_reference: Tensor,
    beta: float,
    sign: Tensor | float = 1.0,
) -> Tensor:
    """Return the DPO loss of each slot, [slots] (Rafailov et al. 2023, eq. 7; FOUND).

    ``-log sigmoid(s beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)])``, mean over pairs. All four
    are log-probabilities of whole answers, sums over tokens, [slots, pairs]. ``sign`` s is -1 for
    pairs that an objective would have the other way round and 0 for those that it has no opinion
    of, a number or [slots, pairs] (DERIVED).
    """
    gain = (chosen - chosen_reference) - (rejected - rejected_reference)
    return -functional.logsigmoid(sign * (beta * gain)).mean(1)


def pairwise(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return ``-log sigmoid(r+ - r-)``, mean over pairs, [slots], of rewards [slots, pairs].

    The likelihood of Bradley and Terry (Ouyang et al. 2022, eq. 1; FOUND).
    """
    return -functional.logsigmoid(chosen - rejected).mean(1)


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """Return PPO's loss of each token, ``-min(rho A, clip(rho, 1 - clip, 1 + clip) A)``.

    ``rho = pi(token) / pi_old(token)`` (Schulman et al. 2017, eq. 7; FOUND). Advantages are
    [slots, rows, length], or [slots, rows, 1] where all tokens of an answer share one.
    """
    ratio = _within(log_probs - old_log_probs, mask).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -_within(gain, mask)


def kl_estimate(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return k3 of each sampled token, an estimate of KL(pi || ref) without bias, never negative.

    ``ref/pi - log(ref/pi) - 1`` (Schulman 2020, "Approximating KL divergence"; FOUND).
    """
    log_ratio = _within(reference - log_probs, mask)
    return log_ratio.exp() - log_ratio - 1


def exact_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Return KL(pi || ref) in nats over the vocabulary, [..., vocabulary] -> [...]."""
    log_p = logits.float().log_softmax(-1)
    log_q = reference_logits.float().log_softmax(-1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each prediction in nats, [..., vocabulary] -> [...]."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns of each token, both as ``rewards`` [..., length].

    ``A_t = sum_k (gamma lam)^k delta_{t+k}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``, and
    ``G = A + V`` (Schulman et al. 2016, eq. 16; FOUND). An answer ends with its last token: V is
    zero behind it.
    """
    rewards, values = _within(rewards, mask), _within(values, mask)
    following = functional.pad(values[..., 1:], (0, 1))
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[..., 0])
    for t in reversed(range(deltas.shape[-1])):
        running = deltas[..., t] + gamma * lam * running
        advantages[..., t] = running
    return _within(advantages, mask), _within(advantages + values, mask)


def group_advantages(rewards: Tensor, scale: Scale) -> Tensor:
    """Return GRPO's advantages of answers, [slots, prompts, samples], from their rewards.

    A reward less its prompt's mean (Shao et al. 2024; FOUND), divided by the deviation of the
    prompt's ``group`` (as there), of all of the client's rewards (``batch``, Hu 2025), or not at
    all (``none``, Dr. GRPO, Liu et al. 2025). Deviations are unbiased, plus 1e-4.
    """
    advantages = rewards - rewards.mean(2, keepdim=True)
    if scale == "none":
        return advantages
    if scale == "group":
        return advantages / (_deviation(rewards).unsqueeze(2) + _SMALLEST_DEVIATION)
    return advantages / (_deviation(rewards.flatten(1)).view(-1, 1, 1) + _SMALLEST_DEVIATION)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return each slot's mean over answers of the mean over an answer's tokens, [slots]."""
    return (_within(values, mask).sum(2) / mask.sum(2).clamp(min=1)).mean(1)


def answer_log_probs(
    logits: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of the labelled tokens, and the mask of them, both [rows, length].

    Logits [rows, length, vocabulary] at a position predict the next token; a value stands at the
    place of its own token, as columns of tokens do, and is zero where labels are IGNORED. The
    policy is ``softmax(logits / temperature)``.
    """
    # The labels move, not the logits: these are by far the larger of the two.
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    flat = logits.float().flatten(0, 1)
    if temperature != 1.0:
        flat = flat / temperature
    losses = functional.cross_entropy(
        flat, targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(targets.shape)
    mask = labels != IGNORED
    mask[:, 0] = False  # nothing predicts the first token
    return functional.pad(-losses[:, :-1], (1, 0)), mask


def _within(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0)


def _deviation(values: Tensor) -> Tensor:
    """Return the unbiased deviation over the last dimension, 0 of a single value."""
    return values.std(-1) if values.shape[-1] > 1 else torch.zeros_like(values[..., 0])
