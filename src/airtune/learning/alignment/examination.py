"""What a policy earns on prompts that nobody learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from airtune import keyed
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.drawing import prompts_of
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.losses import exact_kl
from airtune.learning.alignment.rewards import Rewards
from airtune.learning.alignment.scoring import pad_and_cap, reference_logits
from airtune.learning.data.examples import IGNORED, Examples
from airtune.learning.prediction import rows_of_a_pass

_KEY = (2**31,)  # of no client


@dataclass(frozen=True)
class Examination:
    """Held-out prompts are answered by every model with the same random numbers.

    So differences between models are not those of luck in drawing. At most ``prompts`` are used,
    drawn once.
    """

    rewards: Rewards
    sampling: Sampling
    prompts: int
    seed: int

    def __call__(
        self, model: AdaptedModel, adapter: Adapter, test: Examples, told: Adapter
    ) -> dict[str, float]:
        """Return mean helpfulness and safety, KL and distinct-2 of an adapter's answers.

        KL is to the pretrained backbone, exact over the vocabulary, summed over an answer's
        tokens, in nats; distinct-2 is the share of different ones among all pairs of neighbouring
        tokens, comparable between equal numbers of answers only.
        """
        asked = self.asked(test)
        request = Request(adapter, asked, range(len(asked)), _KEY)
        (answers,) = generate(model, [request], self.sampling, self.seed)
        helpful, safe = self.rewards(model, answers, told).mean(0).tolist()
        return {
            "helpful": helpful,
            "safe": safe,
            "kl": divergence(model, adapter, answers, self.sampling.temperature),
            "distinct_2": distinct(answers.tokens, answers.mask),
        }

    def asked(self, test: Examples) -> list[list[int]]:
        """Return the test prompts that are used, as tokens."""
        drawn = keyed.generator(self.seed, "examined").permutation(len(test))[: self.prompts]
        return prompts_of(test.at(np.sort(drawn)))


def divergence(
    model: AdaptedModel, adapter: Adapter, answers: Answers, temperature: float
) -> float:
    """Return the mean over answers of the summed KL(adapter || backbone) of their tokens, nats.

    Both are taken at the sampling temperature (1 where that is 0).
    """
    examples = answers.examples(*pad_and_cap(model))
    model.slots.load([adapter])
    total = 0.0
    for positions in examples.by_length(rows_of_a_pass(model, examples)):
        batch = {name: value.to(model.device) for name, value in examples.batch(positions).items()}
        with torch.inference_mode():
            own, reference = model.logits(batch), reference_logits(model, batch)
            each = exact_kl(own / (temperature or 1.0), reference / (temperature or 1.0))
        # Logits at a place are of the next token.
        total += float(each[:, :-1][batch["labels"][:, 1:] != IGNORED].double().sum())
    return total / len(examples)


def distinct(tokens: Tensor, mask: Tensor) -> float:
    """Return the share of different pairs of neighbouring tokens in rows [n, length]."""
    both = mask[:, 1:] & mask[:, :-1]
    pairs = torch.stack([tokens[:, :-1][both], tokens[:, 1:][both]], dim=1)
    return len(torch.unique(pairs, dim=0)) / max(len(pairs), 1)
