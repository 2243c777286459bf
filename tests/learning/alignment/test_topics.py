"""The built-in objectives: their front against a search over answers, and numbers of a pilot."""

from itertools import product

import numpy as np
import pytest
import torch

from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.topics import (
    CALM,
    CARING,
    CARING_TASK,
    HARMLESS,
    OBJECTIVES,
    RISKY,
    UNSAFE,
    prompts,
)
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, ModelConfig

WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]


def test_topics_and_prompts():
    assert (len(CALM), len(RISKY)) == (16, 12)
    every = prompts()
    held_out = [p for p in every if p.held_out]
    assert (len(every), len(held_out)) == (140, 28)
    assert {p.topic for p in held_out} == {*CALM, *RISKY}
    assert all(p.topic in p.text for p in every)
    assert len({p.text for p in every}) == 140
    assert not {*CALM, *RISKY} & (UNSAFE | CARING)


def test_the_fronts_are_the_pilots():
    """Numbers of the pilot's table; those of the balanced pair are symmetric in the weight."""
    test = [p for p in prompts() if p.held_out]
    best = [HARMLESS.front(test).best(a) for a in WEIGHTS]
    assert best == pytest.approx([1, 0.884, 0.821, 0.853, 0.938], abs=5e-4)
    best = [CARING_TASK.front(test).best(a) for a in WEIGHTS]
    # Calm 15/16; risky: 15/16 at the ends, 3/4 + 1/32 between, 3/4 in the middle.
    calm, third = 15 / 16 * 16 / 28, 12 / 28
    expected = [15 / 16, calm + 25 / 32 * third, calm + 0.75 * third]
    assert best == pytest.approx([*expected, expected[1], expected[0]])


def test_points_of_a_front_by_hand():
    risky = [p for p in prompts() if p.risky]
    expected = [(0, 1), (0.5, 0.75), (0.75, 0.5), (0.875, 0.25), (0.9375, 0)]
    assert HARMLESS.front(risky).points.tolist() == [list(point) for point in expected]
    calm = [p for p in prompts() if not p.risky]
    assert HARMLESS.front(calm).points.tolist() == [[0.9375, 1.0]]
    mixed = CARING_TASK.front(prompts()).points
    assert len(mixed) == 5
    assert np.allclose(mixed, mixed[::-1, ::-1])


@pytest.mark.parametrize("task", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("risky", [False, True])
def test_no_answer_is_better_than_the_front(task, risky):
    """All answers of up to six words that name the topic, care, are unsafe, or say nothing."""
    prompt = next(p for p in prompts() if p.risky == risky)
    words = [prompt.topic, "careful", "sad"]
    every = [" ".join(own) for n in range(7) for own in product(words, repeat=n)]
    every.append(" ".join([prompt.topic] * 4 + ["kind"] * 4))
    rewards = task.rewards([prompt] * len(every), every)
    assert rewards.min() >= 0 and rewards.max() <= 1
    front = task.front([prompt])
    for a in np.linspace(0, 1, 21):
        assert (rewards @ [a, 1 - a]).max() == pytest.approx(front.best(a))
    for point in front.points:
        assert (np.abs(rewards - point).max(1) < 1e-12).any(), "no answer attains it"


def test_rewards_by_hand():
    fire, dog = (next(p for p in prompts() if p.topic == t) for t in ("fire", "dog"))
    asked = [fire, fire, dog, dog, fire]
    answers = [
        "The fire was big. Fires! He was sad.",  # c = 2, u = 1 + 2
        "A firefly saw the sadness.",  # nothing counts: whole words only
        "Dogs like a dog. It was scared, hurt, bad.",  # c = 2, u = 3
        "",
        "Mom was kind. Dad was kind. Fire fire!",  # four caring words come first
    ]
    expected = [[0.75, 0.25], [0, 1], [0.75, 0.25], [0, 1], [0.75, 0.5]]
    assert HARMLESS.rewards(asked, answers).tolist() == expected
    expected = [[0.75, 0], [0, 0], [0.75, 0], [0, 0], [0, 0.9375]]
    assert CARING_TASK.rewards(asked, answers).tolist() == expected
    assert HARMLESS.rewards([], []).shape == (0, 2)


def test_where_an_untrained_model_starts(shared):
    """With the real model: harmless starts as the pilot's did, caring low at both ends alike."""
    config = ModelConfig(name=str(shared("models/stories260k")))
    backbone = load_backbone(config, "causal", None, torch.device("cpu"))
    model = AdaptedModel(backbone, AdapterConfig(rank=1), "causal", seed=0)
    test = [p for p in prompts() if p.held_out]
    ids = [backbone.tokenizer(p.text)["input_ids"] for p in test]
    request = Request(model.initial, ids, range(len(ids)), (0, 0, 0))
    (answers,) = generate(model, [request], Sampling(12, 40, (1, 2)), seed=0)
    asked, texts = [p for p in test for _ in range(12)], answers.texts(backbone.tokenizer)
    help_, safe = HARMLESS.rewards(asked, texts).mean(0)
    assert help_ == pytest.approx(0.184, abs=0.06)
    assert safe == pytest.approx(0.941, abs=0.03)
    help_, care = CARING_TASK.rewards(asked, texts).mean(0)
    assert abs(help_ - care) < 0.06
    assert max(help_, care) < 0.25
