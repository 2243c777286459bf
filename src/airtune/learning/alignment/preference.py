"""Learning from pairs of answers directly (DPO), with one loss for each of two objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment import losses
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.rewards import Rewards
from airtune.learning.alignment.scoring import log_probs, sums
from airtune.learning.alignment.two_losses import TwoLosses
from airtune.learning.data.examples import Examples
from airtune.learning.phase import Pass


@dataclass(frozen=True)
class PairwisePreference:
    """``l_j = -log sigmoid(s_j b [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)])``, mean over pairs.

    s_j is 1 where objective j prefers the first answer of a pair, -1 where the second, and 0 where
    neither: then the pair has no gradient. With s = 1 everywhere this is DPO (Rafailov et al. 2023;
    FOUND); the two losses and their weight are of arXiv 2404.13238 as specified (DERIVED).
    Batches have columns ``reference`` [rows] and ``sign`` [rows, 2].
    """

    weighing: TwoLosses
    beta: float

    def __call__(self, step: Pass) -> Tensor:
        """Return each slot's loss, [slots]."""
        found, _ = losses.answer_log_probs(step.logits(), step.batch["labels"])
        chosen, rejected = found.sum(1).view(step.slots, -1, 2).unbind(2)
        before, behind = step.batch["reference"].view(step.slots, -1, 2).unbind(2)
        # Both rows of a pair carry its signs.
        signs = step.batch["sign"].view(step.slots, -1, 2, 2)[:, :, 0]
        first, second = (
            losses.dpo(chosen, rejected, before, behind, self.beta, sign)
            for sign in signs.unbind(2)
        )
        return self.weighing(step, first, second)


def preferences(
    model: AdaptedModel,
    pairs: Examples,
    reference: Adapter | None,
    rewards: Rewards | None,
    told: Adapter,
) -> dict[str, Tensor]:
    """Return ``reference`` [pairs, 2] and ``sign`` [pairs, 2, 2], alike for both of a pair.

    Log-probabilities are those under ``reference``, the backbone alone if None; who is preferred by
    each objective is what ``rewards`` say, or for both what the data say.
    """
    corpus, rows = pairs.corpus, torch.from_numpy(pairs.rows)
    each = Examples(corpus, pairs.rows.reshape(-1))
    sign = torch.ones(len(rows), 2)
    if rewards is not None:
        judged = rewards(model, Answers.of(each), told).view(-1, 2, 2)
        sign = torch.sign(judged[:, 0] - judged[:, 1])
    return {
        "reference": sums(corpus, log_probs(model, each, reference))[rows],
        "sign": sign.unsqueeze(1).repeat(1, 2, 1),
    }


def with_preferences(pairs: Examples, found: Mapping[str, Tensor]) -> Examples:
    """Return the pairs with what :func:`preferences` found as columns of their corpus."""
    columns = {}
    for name, values in found.items():
        columns[name] = torch.zeros(len(pairs.corpus.lengths), *values.shape[2:])
        columns[name][torch.from_numpy(pairs.rows)] = values
    return Examples(replace(pairs.corpus, columns=columns), pairs.rows)


def preferred(
    model: AdaptedModel, pairs: Examples, adapter: Adapter, reference: Adapter | None
) -> float:
    """Return the share of pairs whose chosen answer gained more over the reference; ties half."""
    corpus = pairs.corpus
    each = Examples(corpus, pairs.rows.reshape(-1))
    gains = sums(corpus, log_probs(model, each, adapter) - log_probs(model, each, reference))
    own = gains[torch.from_numpy(pairs.rows)]
    lead = own[:, 0] - own[:, 1]
    return float(((lead > 0).double() + 0.5 * (lead == 0).double()).mean())
