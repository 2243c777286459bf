"""Answers drawn from many clients' adapters side by side, with a cache of keys and values.

A client's answers are a function of seed, purpose indices, prompt and adapter: each prompt has its
own stream of uniform numbers, of which inverse CDFs make tokens. Clients share passes only if they
have equally many prompts of the same padded length, which their own prompts determine.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment.answers import Answers
from airtune.learning.shifts import identity

_BUCKET = 8  # prompts are padded to a multiple of this
_ROWS = 8  # products on a CPU are equal row by row, whoever is beside, in multiples of this


@dataclass(frozen=True)
class Sampling:
    """``samples`` answers for each prompt, of at most ``tokens`` tokens, ended by one of ``stop``.

    Tokens are drawn from ``softmax(logits / temperature)``; at 0 the likeliest is taken.
    """

    samples: int
    tokens: int
    stop: tuple[int, ...]
    temperature: float = 1.0


@dataclass(frozen=True)
class Request:
    """A client's prompts as tokens, its adapter, and what its randomness is a function of.

    ``key`` are indices such as (client, round, step); ``numbers`` identify prompts, [prompts].
    """

    adapter: Adapter
    prompts: Sequence[Sequence[int]]
    numbers: Sequence[int]
    key: tuple[int, ...]

    @property
    def width(self) -> int:
        """Tokens that prompts are padded to: at least one of them is padding.

        Models take another way where no row of a pass has padding; so every client has some.
        """
        longest = max(len(prompt) for prompt in self.prompts)
        return (longest // _BUCKET + 1) * _BUCKET


def generate(
    model: AdaptedModel, requests: Sequence[Request], sampling: Sampling, seed: int
) -> list[Answers]:
    """Return each request's answers; raise UserError where they have no room in the model.

    The model's slots are loaded with the requests' adapters, as in training.
    """
    for request in requests:
        _check(model, request, sampling)
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, request in enumerate(requests):
        key = len(request.prompts), request.width, identity(request.adapter)
        alike.setdefault(key, []).append(place)
    answers: dict[int, Answers] = {}
    for places in alike.values():
        size = _cohort(model, requests[places[0]], sampling)
        for start in range(0, len(places), size):
            cohort = places[start : start + size]
            own = [requests[place] for place in cohort]
            model.slots.load([request.adapter for request in own])
            answers |= zip(cohort, _side_by_side(model, own, sampling, seed), strict=True)
    return [answers[place] for place in range(len(requests))]


def uniforms(request: Request, sampling: Sampling, seed: int) -> np.ndarray:
    """Return the numbers in [0, 1) that decide a client's tokens, [prompts, samples, tokens]."""
    shape = sampling.samples, sampling.tokens
    draws = [
        keyed.generator(seed, "sampling", *request.key, number).random(shape)
        for number in request.numbers
    ]
    return np.stack(draws)


@torch.inference_mode()
def _side_by_side(
    model: AdaptedModel, requests: Sequence[Request], sampling: Sampling, seed: int
) -> list[Answers]:
    """Generate for requests of one shape, whose adapters are in the model's slots."""
    device, slots, count = model.device, len(requests), len(requests[0].prompts)
    pad = model.backbone.tokenizer.pad_token_id or 0
    prompts, real = _left_padded([p for r in requests for p in r.prompts], requests[0].width, pad)
    # A row for each sample, prompt after prompt; repeated where a slot would have too few.
    used = count * sampling.samples
    rows = np.resize(np.repeat(np.arange(count), sampling.samples), _whole(used))
    chosen = torch.from_numpy((rows + count * np.arange(slots)[:, None]).reshape(-1)).to(device)
    draws = np.stack([uniforms(r, sampling, seed).reshape(used, -1) for r in requests])
    draws = np.pad(draws, ((0, 0), (0, len(rows) - used), (0, 0)), mode="wrap")
    numbers = torch.from_numpy(draws.reshape(-1, sampling.tokens)).to(device)
    stop = torch.tensor(sampling.stop, dtype=torch.long, device=device)

    prompts, real = prompts.to(device), real.to(device)
    policy = _Policy(model)
    logits = policy(prompts, real, (real.cumsum(1) - 1).clamp(min=0))[chosen]
    policy.cache.batch_select_indices(chosen)
    lengths = real.sum(1, keepdim=True)[chosen]
    ones = real.new_ones(len(chosen), sampling.tokens)
    seen = torch.cat([real[chosen], ones], dim=1)

    shape = len(chosen), sampling.tokens
    tokens = torch.full(shape, pad, dtype=torch.long, device=device)
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    log_probs = torch.zeros(shape, device=device)
    going = torch.ones(len(chosen), dtype=torch.bool, device=device)
    for t in range(sampling.tokens):
        token, log_prob = pick(logits, numbers[:, t], sampling.temperature)
        tokens[going, t], log_probs[going, t] = token[going], log_prob[going]
        mask[:, t] = going
        going = going & ~torch.isin(token, stop)
        if t + 1 == sampling.tokens or not going.any():
            break
        width = prompts.shape[1] + t + 1
        logits = policy(tokens[:, t : t + 1], seen[:, :width], lengths + t)
    each = [x.view(slots, len(rows), -1)[:, :used].cpu() for x in (tokens, mask, log_probs)]
    return [
        Answers.trimmed(r.prompts, sampling.samples, *own)
        for r, *own in zip(requests, *each, strict=True)
    ]


def pick(logits: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return a token for each row and its log-probability under the policy that it is drawn from.

    Logits are [rows, vocabulary], ``numbers`` [rows] in [0, 1): a token is the first at which the
    cumulated probability exceeds its number. At temperature 0 it is the likeliest, and its
    log-probability that at temperature 1.
    """
    logits = logits.float()
    if temperature == 0.0:
        tokens = logits.argmax(1)
    else:
        logits = logits / temperature
        # In double precision: single has not the digits for the tail of a large vocabulary.
        cumulated = logits.softmax(1, dtype=torch.float64).cumsum(1)
        target = numbers.unsqueeze(1) * cumulated[:, -1:]
        tokens = torch.searchsorted(cumulated, target, right=True).squeeze(1)
        tokens = tokens.clamp(max=logits.shape[1] - 1)
    return tokens, logits.log_softmax(1).gather(1, tokens.unsqueeze(1)).squeeze(1)


class _Policy:
    """The adapted model with a cache: each call goes on behind the tokens of those before."""

    def __init__(self, model: AdaptedModel) -> None:
        self._forward = model.plain
        self.cache: Any = DynamicCache(config=model.backbone.module.config)
        # A prompt's logits, but for the last, are of no use and as wide as the vocabulary; but the
        # product that makes them should have enough rows.
        known = inspect.signature(self._forward.forward).parameters
        self._options = {"logits_to_keep": _ROWS} if "logits_to_keep" in known else {}

    def __call__(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Return the logits behind the last of ``tokens`` [rows, new], [rows, vocabulary].

        ``mask`` [rows, seen so far and new] is of all tokens, ``positions`` [rows, new].
        """
        output = self._forward(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self._options,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def _whole(rows: int) -> int:
    """Return how many rows a slot has that needs this many."""
    return -(-rows // _ROWS) * _ROWS


def _left_padded(prompts: Sequence[Sequence[int]], width: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return prompts [rows, width] that end in the last column, and 1 where a token stands."""
    ids = np.full((len(prompts), width), pad, dtype=np.int64)
    real = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], real[row, width - len(prompt) :] = prompt, 1
    return torch.from_numpy(ids), torch.from_numpy(real)


def _cohort(model: AdaptedModel, request: Request, sampling: Sampling) -> int:
    """Return how many requests like this one go side by side; no result depends on it."""
    if not model.side_by_side:
        return 1
    rows = _whole(len(request.prompts) * sampling.samples)
    return max(1, model.tokens_per_pass // (rows * (request.width + sampling.tokens)))


def _check(model: AdaptedModel, request: Request, sampling: Sampling) -> None:
    if not all(request.prompts):
        raise UserError("a prompt has no token, so there is nothing to answer; leave it out.")
    longest, room = max(len(prompt) for prompt in request.prompts), model.backbone.longest
    if longest + sampling.tokens > room:
        raise UserError(
            f"a prompt of {longest} tokens and an answer of {sampling.tokens} need more than the "
            f"{room} positions of '{model.backbone.name}'; shorten one of them."
        )
