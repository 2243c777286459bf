"""Reward models with an adapter: what pairs say, and files that belong elsewhere."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment import reward_model
from airtune.learning.alignment.reward_head import features, fit_head
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig, TrainConfig
from airtune.learning.data.examples import tokenise
from airtune.learning.learner import Learner

WORDS = ["show", "the", "port", "route", "of", "router", "status", "for", "all", "links", "in"]


def load_model(source, pooling):
    config = ModelConfig(name=source, pooling=pooling)
    backbone = load_backbone(config, "classification", 1, torch.device("cpu"))
    adapter = AdapterConfig(rank=2, top_layers=1)
    return AdaptedModel(backbone, adapter, "classification", seed=0)


@pytest.fixture(scope="module", params=["last", "mean"])
def model(tiny_llama, request):
    return load_model(tiny_llama, request.param)


def pairs(model, count, seed):
    """Answers of random words; of two the one with fewer times 'the' is chosen."""
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < count:
        two = [" ".join(rng.choice(WORDS, size=rng.integers(3, 9))) for _ in range(2)]
        two.sort(key=lambda text: text.split().count("the"))
        if two[0].split().count("the") < two[1].split().count("the"):
            rows.append({"_prompt": "show ", "_text": two[0], "_rejected": two[1]})
    return tokenise(pd.DataFrame(rows), "causal", model.backbone.tokenizer, 32)


def fit(model, examples, decay):
    """The model whose head alone is trained, as a model with an adapter that does nothing."""
    head = fit_head(features(model.backbone, examples), decay)
    return reward_model.RewardModel(model, {"classifier.weight": head.weight})


def test_held_out_pairs_are_told_apart_and_better_with_an_adapter(model):
    learned, held_out = pairs(model, 300, 1), pairs(model, 200, 2)
    frozen = fit(model, learned, 1e-3)
    nothing = reward_model.RewardModel(model, {})
    assert nothing.accuracy(held_out).share == 0.5  # all are ties
    assert frozen.accuracy(held_out).share > 0.6
    train = TrainConfig(learning_rate=1e-2, head_learning_rate=1e-2, clip_norm=None)
    learner = Learner(model, train, 0, MachineConfig(cohort=1))
    trained = reward_model.train(learner, learned, steps=120, batch_size=32)
    assert trained.accuracy(held_out).share > max(0.75, frozen.accuracy(held_out).share - 0.02)
    assert trained.bits > frozen.bits


def test_rewards_are_standardised_on_a_common_set(model):
    common = pairs(model, 60, 3)
    raw = fit(model, pairs(model, 60, 0), 0.01)
    scaled = raw.standardised(common)
    found = scaled.rewards(common)
    assert (found.mean(), found.std()) == pytest.approx((0, 1), abs=1e-5)
    assert scaled.accuracy(common) == raw.accuracy(common)
    again = scaled.standardised(common)
    assert (again.mean, again.deviation) == pytest.approx((scaled.mean, scaled.deviation))
    with pytest.raises(UserError, match="one reward"):
        reward_model.RewardModel(model, {}).standardised(common)


def test_what_is_read_is_what_was_written(model, tmp_path):
    common = pairs(model, 30, 3)
    own = fit(model, common, 0.01).standardised(common)
    path = tmp_path / "help.safetensors"
    path.write_bytes(own.to_bytes())
    assert own.bits == 8 * path.stat().st_size
    # A head of the backbone's width in single precision, and the file's own header.
    assert own.bits / 8 < 4 * 32 + 600
    with safe_open(path, "pt") as opened:
        assert len(list(opened.keys())) == 1
    found = reward_model.read(path, model)
    assert np.array_equal(found.rewards(common), own.rewards(common))


def test_what_belongs_elsewhere_is_refused(model, tmp_path):
    own = fit(model, pairs(model, 30, 3), 0.01)
    path = tmp_path / "help.safetensors"
    path.write_bytes(own.to_bytes())
    tokenizer = model.backbone.tokenizer.__class__.from_pretrained(model.backbone.source)
    tokenizer.add_tokens(["<new>"])
    other = load_model(model.backbone.source, model.backbone.pooling)
    other.backbone = replace(other.backbone, tokenizer=tokenizer)
    with pytest.raises(UserError, match="has another tokenizer"):
        reward_model.read(path, other)
    wrong = replace(own, tensors={"classifier.weight": torch.zeros(1, 31)})
    path.write_bytes(wrong.to_bytes())
    with pytest.raises(UserError, match=r"'classifier.weight' of shape \[1, 31\], which is none"):
        reward_model.read(path, model)
    path.write_bytes(b"nothing of the sort")
    with pytest.raises(UserError, match="cannot be read as a reward model"):
        reward_model.read(path, model)
    with pytest.raises(UserError, match="cannot be read"):
        reward_model.read(tmp_path / "none", model)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no reward model"):
        reward_model.read(path, model)
