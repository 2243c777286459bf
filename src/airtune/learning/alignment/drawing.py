"""A step's data of policy optimisation: prompts, answers drawn for them, rewards, advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from airtune import keyed
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.credit import Credit, Drawn, mixed
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.rewards import Rewards
from airtune.learning.alignment.scoring import log_probs, pad_and_cap
from airtune.learning.alignment.two_losses import PREFERENCE
from airtune.learning.data.examples import Examples
from airtune.learning.phase import Draft, Made
from airtune.learning.proximal import ANCHOR

TOLD, REFERENCE = "told.", "reference."  # beginnings of names of a phase's constants


def constants(
    weight: float, told: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what drawing needs of a client beside its prompts, as constants of its phases.

    ``told`` is what the server sent for judging, ``reference`` the adapter that a policy is held
    to; empty for the backbone alone.
    """
    named = {TOLD + name: value for name, value in told.items()}
    named |= {REFERENCE + name: value for name, value in reference.items()}
    return {PREFERENCE: torch.tensor(weight), **named}


def under(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the constants whose names begin with ``prefix``, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def prompt_lengths(examples: Examples) -> np.ndarray:
    """Return how many tokens stand before each example's answer, [examples]."""
    corpus, rows = examples.corpus, examples.first.rows
    lengths: np.ndarray = np.minimum(corpus.targets[rows], corpus.lengths[rows])
    return lengths


def prompts_of(examples: Examples) -> list[list[int]]:
    """Return the examples' prompts as tokens: what stands before the answer."""
    corpus, starts = examples.corpus, examples.corpus.offsets[examples.first.rows]
    ends = starts + prompt_lengths(examples)
    return [corpus.tokens[s:e].tolist() for s, e in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Drawing:
    """The maker of a phase: answers to ``prompts`` of the client's prompts, drawn for each round.

    Columns ``old`` and ``reference`` have log-probabilities of tokens; ``credit`` adds advantages.
    With ``pull`` each reward is less by ``pull / 2 ||theta - anchor||^2``, one number for all
    answers of a step, which a mean over them takes away again.
    """

    rewards: Rewards
    credit: Credit
    sampling: Sampling
    prompts: int
    seed: int
    pull: float = 0.0

    @property
    def further(self) -> int:
        """Passes over prompts and answers beside the one that draws them."""
        return 1 + self.rewards.reads + self.credit.reads

    def __call__(self, model: AdaptedModel, drafts: Sequence[Draft]) -> list[Made]:
        """Return each client's answers with their advantages."""
        requests = [self._request(draft) for draft in drafts]
        answers = generate(model, requests, self.sampling, self.seed)
        return [self._made(model, draft, own) for draft, own in zip(drafts, answers, strict=True)]

    def _request(self, draft: Draft) -> Request:
        key = draft.client, draft.round, draft.index
        count = min(self.prompts, len(draft.data))
        chosen = keyed.generator(self.seed, "prompts", *key).permutation(len(draft.data))[:count]
        return Request(dict(draft.adapter), prompts_of(draft.data.at(chosen)), range(count), key)

    def _made(self, model: AdaptedModel, draft: Draft, answers: Answers) -> Made:
        weight = float(draft.constants[PREFERENCE])
        rewards = self.rewards(model, answers, under(TOLD, draft.constants))
        penalty = 0.5 * self.pull * distance(draft.adapter, under(ANCHOR, draft.constants))
        ends = pad_and_cap(model)
        plain = answers.examples(*ends)
        held = under(REFERENCE, draft.constants) or None
        reference = log_probs(model, plain, held, self.sampling.temperature)
        laid = laid_out(plain, reference, answers.mask)
        credits = self.credit(model, Drawn(answers, rewards - penalty, laid, weight))
        token_columns = {"old": answers.log_probs, "reference": laid, **credits.token_columns}
        examples = answers.examples(*ends, credits.columns, token_columns)
        helpful, safe = rewards.mean(0).tolist()
        notes = {
            "helpful": helpful,
            "safe": safe,
            "reward": float(mixed(rewards, weight).mean()),
            "kl": float(((answers.log_probs - laid) * answers.mask).sum(1).mean()),
            **credits.notes,
        }
        # Tokens read and drawn, and those of further passes: the reference's, and what judges.
        tokens = sum(map(len, answers.prompts)) + int(answers.mask.sum())
        return Made(examples, tokens + self.further * len(plain.corpus.tokens), notes)


def distance(adapter: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> float:
    """Return the squared distance of an adapter to anchors of some of its tensors."""
    return sum(float((adapter[name] - value).square().sum()) for name, value in anchors.items())


def laid_out(examples: Examples, column: Tensor, mask: Tensor) -> Tensor:
    """Return a column of a corpus' tokens as [answers, longest], zero behind an answer's end."""
    corpus = examples.corpus
    places = [
        np.arange(start + target, end)
        for start, target, end in zip(
            corpus.offsets[:-1], corpus.targets, corpus.offsets[1:], strict=True
        )
    ]
    found = torch.zeros(mask.shape)
    found[mask] = column[torch.from_numpy(np.concatenate(places))]
    return found
