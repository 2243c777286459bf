"""What is said of a policy's answers, recomputed one by one."""

import numpy as np
import pytest
import torch

from airtune.errors import UserError
from airtune.learning.alignment.drawing import prompts_of
from airtune.learning.alignment.examination import Examination, distinct, divergence
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.rewards import TopicRewards, about
from airtune.learning.alignment.topics import HARMLESS, prompts
from airtune.learning.data import topics
from airtune.learning.data.examples import tokenise

SAMPLING = Sampling(3, 6, (2,))


@pytest.fixture(scope="module")
def held_out(talker):
    frame = topics.frames()[1].assign(_text=None)
    frame = frame.assign(_prompt=frame["prompt"])
    return tokenise(frame, "causal", talker.model.backbone.tokenizer, 64)


def held_out_alone_have_nothing_to_learn_and_come_back_as_they_were(talker, held_out):
    tokenizer = talker.model.backbone.tokenizer
    own = prompts_of(held_out)
    assert len(own) == 28
    texts = tokenizer.batch_decode(own, skip_special_tokens=True)
    expected = [prompt for prompt in prompts() if prompt.held_out]
    assert [about(t).topic for t in texts] == [prompt.topic for prompt in expected]
    assert [about(t).risky for t in texts] == [prompt.risky for prompt in expected]
    seen = talker.evaluate(talker.model.initial, held_out)
    assert np.isnan(seen.accuracy())
    assert np.isnan(seen.mean_loss())


def test_scores_are_those_of_the_answers_that_it_draws(talker, held_out, moved):
    examination = Examination(TopicRewards(HARMLESS), SAMPLING, 5, seed=4)
    adapter = moved(1)
    found = examination(talker.model, adapter, held_out, {})
    asked = examination.asked(held_out)
    assert len(asked) == 5
    (answers,) = generate(talker.model, [Request(adapter, asked, range(5), (2**31,))], SAMPLING, 4)
    tokenizer = talker.model.backbone.tokenizer
    helpful, safe = [], []
    for row, (tokens, mask) in enumerate(zip(answers.tokens, answers.mask, strict=True)):
        words = tokenizer.decode(tokens[mask], skip_special_tokens=True).lower().split()
        prompt = about(tokenizer.decode(asked[row // 3], skip_special_tokens=True))
        pair = HARMLESS.judge(prompt.topic, prompt.risky, words)
        helpful.append(pair[0])
        safe.append(pair[1])
    assert found["helpful"] == pytest.approx(np.mean(helpful))
    assert found["safe"] == pytest.approx(np.mean(safe))
    assert found["kl"] > 0.01
    again = examination(talker.model, adapter, held_out, {})
    assert again == found
    untrained = examination(talker.model, dict(talker.model.initial), held_out, {})
    assert untrained["kl"] == pytest.approx(0.0, abs=1e-5)


def test_divergence_is_summed_over_an_answers_tokens(talker, held_out, moved):
    asked, adapter = prompts_of(held_out)[:2], moved(2)
    (answers,) = generate(talker.model, [Request(adapter, asked, range(2), (0,))], SAMPLING, 0)
    total = 0.0
    for row in range(6):
        length = int(answers.mask[row].sum())
        prompt = asked[row // 3]
        tokens = torch.tensor([[*prompt, *answers.tokens[row, :length].tolist()]])
        batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        talker.model.slots.load([adapter])
        with torch.inference_mode():
            p = talker.model.logits(batch)[0].double().softmax(1)
            q = talker.model.backbone.module(**batch).logits[0].double().softmax(1)
        places = slice(len(prompt) - 1, len(prompt) + length - 1)
        total += float((p * (p / q).log()).sum(1)[places].sum())
    assert divergence(talker.model, adapter, answers, 1.0) == pytest.approx(total / 6, rel=1e-4)


def test_distinct_counts_different_neighbours():
    tokens = torch.tensor([[1, 2, 1, 2], [2, 1, 9, 9]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    # (1, 2), (2, 1), (1, 2) and (2, 1): two different ones of four.
    assert distinct(tokens, mask) == 0.5


def test_a_prompt_without_a_topic_cannot_be_judged():
    with pytest.raises(UserError, match="names none of the built-in topics"):
        about("Tell me about routers.")
