"""Heads on frozen features against NumPy, SciPy and counting; files that belong elsewhere."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.optimize
import torch
from transformers import AutoModel

from airtune.errors import UserError
from airtune.learning.alignment import reward_files, reward_head
from airtune.learning.alignment.reward_head import RewardHead, accuracy, features, fit_head
from airtune.learning.backbone import load_backbone
from airtune.learning.config import ModelConfig
from airtune.learning.data.examples import Examples, pack


def load(source, task="causal", pooling="auto"):
    config = ModelConfig(name=source, pooling=pooling)
    return load_backbone(config, task, 1 if task == "classification" else None, torch.device("cpu"))


@pytest.fixture(scope="module")
def backbone(tiny_llama):
    return load(tiny_llama)


def pairs(count, seed, longest=40):
    """Pairs of random tokens, of which the chosen has fewer of the tokens below 60."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        two = [rng.integers(4, 120, size=rng.integers(1, longest + 1)) for _ in range(2)]
        texts += sorted(two, key=lambda text: (text < 60).mean())
    packed = pack([text.tolist() for text in texts], np.ones(2 * count, int), "causal", 0, 64)
    return Examples(packed.corpus, packed.rows.reshape(-1, 2))


def alone(source, examples, pooling="mean"):
    """What a model of transformers' own makes of one text at a time, without padding or mask."""
    model = AutoModel.from_pretrained(source).eval()
    corpus, found = examples.corpus, []
    for row in examples.rows.reshape(-1):
        ids = corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]].astype(np.int64)
        with torch.no_grad():
            states = model(torch.from_numpy(ids[None])).last_hidden_state[0].double().numpy()
        found.append(states.mean(0) if pooling == "mean" else states[-1])
    return np.stack(found).reshape(*examples.rows.shape, -1)


@pytest.mark.parametrize(
    ("task", "pooling"),
    [("causal", "mean"), ("classification", "mean"), ("classification", "last")],
)
def test_features_are_pooled_states_of_each_text_alone(tiny_llama, task, pooling):
    own, examples = load(tiny_llama, task, pooling), pairs(30, 0)
    expected = alone(tiny_llama, examples, pooling)
    assert np.ptp(expected) > 1
    assert np.allclose(features(own, examples).numpy(), expected, atol=1e-5)


def test_an_encoder_is_read_as_it_says_itself(tiny_encoder):
    own, examples = load(tiny_encoder, "classification"), pairs(30, 0)
    expected = alone(tiny_encoder, examples)
    expected *= 32**0.5 / np.linalg.norm(expected, axis=-1, keepdims=True)
    assert np.allclose(features(own, examples).numpy(), expected, atol=1e-5)


@pytest.fixture(params=["decoder", "encoder", "stories260k"])
def reader(request, tiny_llama, tiny_encoder, shared):
    """Backbones that read; sums of the smallest have one order whatever the padding."""
    if request.param == "encoder":
        return load(tiny_encoder, "classification")
    return load(tiny_llama if request.param == "decoder" else str(shared("models/stories260k")))


def test_features_have_the_same_bytes_whatever_else_is_read(reader):
    examples = pairs(60, 1, longest=64)
    corpus, together = examples.corpus, features(reader, examples).view(120, -1)
    assert set(corpus.lengths) >= {8, 64}  # without padding of their own
    for rows in (np.arange(119, -1, -1), np.arange(3, 120, 7), np.array([5])):
        assert torch.equal(features(reader, Examples(corpus, rows)), together[rows])
    for row in range(120):
        text = corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]].tolist()
        by_itself = pack([text], np.zeros(1, int), "classification", 0, len(text))
        assert torch.equal(features(reader, by_itself)[0], together[row])


def test_the_head_is_the_solution_of_its_problem(backbone):
    own, decay = features(backbone, pairs(40, 0)), 0.01
    read = own.double().numpy()
    scale = read.reshape(-1, read.shape[-1]).std(0, ddof=1)
    apart = (read[:, 0] - read[:, 1]) / scale
    solved = scipy.optimize.minimize(
        lambda w: np.logaddexp(0, -apart @ w).mean() + decay / 2 * w @ w,
        np.zeros(apart.shape[1]),
        tol=1e-10,
    )
    expected = read @ (solved.x / scale)
    found = fit_head(own, decay).rewards(own).numpy()
    assert np.ptp(expected) > 1
    assert np.allclose(found, expected, atol=1e-2 * np.ptp(expected))


def test_accuracy_counts_pairs():
    rewards = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [5.0, -1.0], [0.5, 0.25]])
    right = [1 if a > b else 0.5 if a == b else 0 for a, b in rewards]
    share = sum(right) / 5
    error = (sum((r - share) ** 2 for r in right) / 4 / 5) ** 0.5
    assert accuracy(rewards) == pytest.approx((share, error, 5))
    assert share == 0.7
    assert accuracy(rewards[:1]) == (1.0, float("inf"), 1)


def test_rewards_are_standardised_and_the_sent_head_has_the_same_bytes(backbone):
    common = features(backbone, pairs(40, 3)).flatten(0, 1)
    raw = fit_head(features(backbone, pairs(40, 0)), 0.01)
    head = raw.standardised(common)
    rewards = head.rewards(common).numpy()
    assert (rewards.mean(), rewards.std()) == pytest.approx((0, 1), abs=1e-5)
    assert head.standardised(common).deviation == head.deviation
    sent = head.tensors("helpful")
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sent.items()}
    width = backbone.module.config.hidden_size
    assert shapes == {"helpful.weight": ((1, width), torch.float32),
                      "helpful.scale": ((2,), torch.float32)}  # fmt: skip
    assert torch.equal(RewardHead.told("helpful", sent).rewards(common), head.rewards(common))


def test_equal_rewards_cannot_be_standardised(backbone):
    common = features(backbone, pairs(20, 3)).flatten(0, 1)
    twins = common[:1].expand(20, -1)
    learned = fit_head(features(backbone, pairs(20, 0)), 0.01)
    for head, texts in ((RewardHead(torch.zeros(1, 32)), common), (learned, twins)):
        with pytest.raises(UserError, match="one reward"):
            head.standardised(texts)


def test_what_is_read_is_what_was_written(backbone, tmp_path):
    own = features(backbone, pairs(30, 3))
    head = fit_head(own, 0.01).standardised(own.flatten(0, 1))
    path = tmp_path / "helpful.safetensors"
    path.write_bytes(head.to_bytes(backbone))
    assert path.stat().st_size < 4 * 32 + 600
    assert torch.equal(reward_head.read(path, backbone).rewards(own), head.rewards(own))


def test_what_belongs_elsewhere_is_refused(backbone, tiny_llama, tmp_path):
    head, path = RewardHead(torch.ones(1, 32)), tmp_path / "helpful.safetensors"
    path.write_bytes(head.to_bytes(backbone))
    tokenizer = backbone.tokenizer.__class__.from_pretrained(backbone.source)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(UserError, match="has another tokenizer"):
        reward_head.read(path, replace(backbone, tokenizer=tokenizer))
    with pytest.raises(UserError, match=r"the mean state of '.*', and here .* 'other'"):
        reward_head.read(path, replace(backbone, name="other"))
    with pytest.raises(UserError, match="here they are read by the last state"):
        reward_head.read(path, load(tiny_llama, "classification", "last"))
    path.write_bytes(RewardHead(torch.ones(1, 31)).to_bytes(backbone))
    with pytest.raises(UserError, match=r"shape \[1, 31\], and '.*' has .* width 32"):
        reward_head.read(path, backbone)
    path.write_bytes(RewardHead(torch.full((1, 32), torch.nan)).to_bytes(backbone))
    with pytest.raises(UserError, match="not finite"):
        reward_head.read(path, backbone)
    more = {"classifier.weight": torch.ones(1, 32), "classifier.bias": torch.ones(1)}
    path.write_bytes(reward_files.to_bytes(reward_files.Stored(more, 0.0, 1.0), backbone))
    with pytest.raises(UserError, match=r"more than a head \(classifier.bias, classifier.weight\)"):
        reward_head.read(path, backbone)
    for mean, deviation in product((0.0, float("nan")), (0.0, -1.0)):
        path.write_bytes(replace(head, mean=mean, deviation=deviation).to_bytes(backbone))
        with pytest.raises(UserError, match="holds no reward model"):
            reward_head.read(path, backbone)
