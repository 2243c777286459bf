"""Learning from pairs: DPO where both objectives agree, and what each prefers where not."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from airtune.learning.alignment import losses
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.preference import (
    PairwisePreference,
    preferences,
    preferred,
    with_preferences,
)
from airtune.learning.alignment.two_losses import TwoLosses
from airtune.learning.data.examples import tokenise
from airtune.learning.learner import Assignment
from airtune.learning.phase import Pass, Phase


@dataclass(frozen=True)
class Listed:
    """Rewards that are given by position."""

    values: tuple[tuple[float, float], ...]

    def __call__(self, model, answers, told):
        return torch.tensor(self.values)


@pytest.fixture(scope="module")
def pairs(talker):
    frame = pd.DataFrame(
        {
            "_prompt": ["Once there was a dog.", "Sam wanted a ball.", "Mom had a fire."],
            "_text": ["kind nice dog", "help mom ball dog", "safe careful"],
            "_rejected": ["sad", "cry hurt", "fire fire fire fire"],
        }
    )
    return tokenise(frame, "causal", talker.model.backbone.tokenizer, 64)


def log_prob(talker, adapter, row, pairs):
    """Sum over an answer's tokens, by a pass of its own."""
    corpus = pairs.corpus
    tokens = corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]].astype(np.int64)
    tokens = torch.from_numpy(tokens)[None]
    module = talker.model.backbone.module
    if adapter is not None:
        talker.model.slots.load([adapter])
        logits = talker.model.logits(
            {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        )
    else:
        logits = module(tokens).logits
    start = int(corpus.targets[row])
    found = logits[0, :-1].log_softmax(1).gather(1, tokens[0, 1:, None])[:, 0]
    return found[start - 1 :].sum()


def objective_loss(talker, pairs, rule, adapter, weight=0.3):
    batch = pairs.batch(np.arange(len(pairs)))
    talker.model.slots.load([adapter])
    constants = {"preference": torch.tensor([weight])}
    step = Pass(talker.model, batch, 1, constants)
    return PairwisePreference(TwoLosses(rule), 0.7)(step)


def test_without_rewards_it_is_dpo_to_the_reference(talker, pairs, moved):
    adapter, reference = moved(1), moved(2)
    own = with_preferences(pairs, preferences(talker.model, pairs, reference, None, {}))
    found = objective_loss(talker, own, "fixed", adapter)
    with torch.no_grad():
        sums = {
            who: torch.tensor([[float(log_prob(talker, each, r, pairs)) for r in rows]
                               for rows in pairs.rows])
            for who, each in (("policy", adapter), ("reference", reference))
        }  # fmt: skip
    chosen, rejected = sums["policy"].T[:, None]
    expected = losses.dpo(chosen, rejected, *sums["reference"].T[:, None], 0.7)
    assert torch.allclose(found, expected, atol=1e-5)


def test_each_objective_prefers_by_its_reward_and_ties_say_nothing(talker, pairs, moved):
    rewards = Listed(((1.0, 0.0), (0.0, 1.0), (2.0, 2.0), (1.0, 1.0), (0.5, 0.1), (0.5, 0.3)))
    own = with_preferences(pairs, preferences(talker.model, pairs, None, rewards, {}))
    signs = own.corpus.columns["sign"][torch.from_numpy(own.rows)]
    assert signs[:, 0].tolist() == [[1.0, -1.0], [1.0, 1.0], [0.0, -1.0]]
    assert torch.equal(signs[:, 0], signs[:, 1])
    adapter = moved(3)
    found = objective_loss(talker, own, "fixed", adapter, weight=0.25).detach()
    with torch.no_grad():
        gain = [
            [
                float(log_prob(talker, adapter, r, pairs) - log_prob(talker, None, r, pairs))
                for r in rows
            ]
            for rows in pairs.rows
        ]
    lead = 0.7 * (np.array(gain)[:, 0] - np.array(gain)[:, 1])
    first, second = (
        np.mean(np.log1p(np.exp(-np.array(sign) * lead))) for sign in ([1, 1, 0], [-1, 1, -1])
    )
    assert float(found) == pytest.approx(0.25 * first + 0.75 * second, abs=1e-5)


def test_given_answers_are_read_back(talker, pairs):
    each = replace(pairs, rows=pairs.rows.reshape(-1))
    answers = Answers.of(each)
    tokenizer = talker.model.backbone.tokenizer
    assert answers.texts(tokenizer)[:2] == ["kind nice dog", "sad"]
    packed = answers.examples(0, 64)
    assert packed.corpus.tokens.tolist() == pairs.corpus.tokens.tolist()
    assert packed.corpus.targets.tolist() == pairs.corpus.targets.tolist()


def test_training_on_pairs_wins_them(talker, pairs):
    initial = dict(talker.model.initial)
    assert preferred(talker.model, pairs, initial, None) == 0.5
    own = with_preferences(pairs, preferences(talker.model, pairs, None, None, {}))
    objective = PairwisePreference(TwoLosses("anchored"), 0.5)
    phase = Phase(own, objective, 12, constants={"preference": torch.tensor(0.5)})
    task = Assignment(0, 0, initial, [phase])
    list(talker.train([task]))
    assert task.losses[-1] < 0.5 * task.losses[0]
    assert preferred(talker.model, pairs, task.adapter, None) == 1.0
