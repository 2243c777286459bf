"""Advantages of answers, against least squares and sums written out."""

import numpy as np
import pytest
import torch

from airtune.learning.alignment.credit import Apart, Critic, Drawn, Mixture, discounted, ridge
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.scoring import hidden_states

PROMPTS = [[1, 20, 30], [1, 44, 5, 60, 71], [1, 9]]
SAMPLES = 4


@pytest.fixture(scope="module")
def drawn(talker):
    request = Request(dict(talker.model.initial), PROMPTS, range(3), (0,))
    (answers,) = generate(talker.model, [request], Sampling(SAMPLES, 7, (2,)), seed=1)
    rng = np.random.default_rng(0)
    rewards = torch.from_numpy(rng.normal(size=(12, 2))).float()
    reference = torch.from_numpy(rng.normal(size=answers.mask.shape)).float() * answers.mask
    return Drawn(answers, rewards, reference, 0.3)


def test_a_mixture_is_less_its_prompts_mean_in_units_of_the_clients_deviation(drawn):
    quality = (0.3 * drawn.rewards[:, 0] + 0.7 * drawn.rewards[:, 1]).numpy().reshape(3, SAMPLES)
    expected = (quality - quality.mean(1, keepdims=True)) / (quality.std(ddof=1) + 1e-4)
    found = Mixture()(None, drawn).columns["advantage"]
    assert np.allclose(found.numpy(), expected.ravel(), atol=1e-5)


def test_apart_each_reward_has_its_own_unit(drawn):
    found = Apart()(None, drawn).columns["advantages"].numpy()
    for column in (0, 1):
        own = drawn.rewards[:, column].numpy().reshape(3, SAMPLES)
        expected = (own - own.mean(1, keepdims=True)) / (own.std(ddof=1) + 1e-4)
        assert np.allclose(found[:, column], expected.ravel(), atol=1e-5)


def test_what_all_answers_have_in_common_is_no_advantage(drawn):
    """Why a penalty on the distance of parameters has no effect in the reward."""
    less = Drawn(drawn.answers, drawn.rewards - 3.0, drawn.reference, drawn.weight)
    for credit, name in ((Mixture(), "advantage"), (Apart(), "advantages")):
        own, other = (credit(None, each).columns[name] for each in (drawn, less))
        assert torch.allclose(own, other, atol=1e-5)


def test_returns_are_sums_of_what_follows():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.0, 8.0]])
    expected = [[1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4], [0.5 + 0.25 * 8, 4, 8]]
    assert discounted(rewards, 0.5).tolist() == expected


def test_ridge_is_least_squares_with_rows_added():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 3)) * [1, 10, 0.1] + 5, rng.normal(size=30)
    scale, centre = x.std(0, ddof=1), x.mean(0)
    rows = np.vstack([(x - centre) / scale, np.sqrt(4.0) * np.eye(3)])
    slope = np.linalg.lstsq(rows, np.concatenate([y - y.mean(), np.zeros(3)]), rcond=None)[0]
    expected = np.append(slope / scale, y.mean() - centre @ (slope / scale))
    found = ridge(torch.from_numpy(x), torch.from_numpy(y), 4.0)
    assert np.allclose(found.numpy(), expected)


def test_states_are_those_before_each_token(talker, drawn):
    answers = drawn.answers
    states = hidden_states(talker.model, answers)
    for row in (0, 5, 11):
        prompt, length = PROMPTS[row // SAMPLES], int(answers.mask[row].sum())
        tokens = torch.tensor([[*prompt, *answers.tokens[row, :length].tolist()]])
        with torch.inference_mode():
            said = talker.model.backbone.module(tokens, output_hidden_states=True)
        own = said.hidden_states[-1][0, len(prompt) - 1 : -1]
        assert torch.allclose(states[row, :length], own, atol=1e-5)
        assert not states[row, length:].any()


def test_a_critic_values_prompts_by_what_it_learned_of_others(talker, drawn):
    states, answers = hidden_states(talker.model, drawn.answers), drawn.answers
    critic = Critic(ridge=0.5)
    returns = torch.randn(answers.mask.shape, generator=torch.Generator().manual_seed(3))
    values = critic.values(states, returns, answers)
    place = np.arange(answers.mask.shape[1]) / answers.mask.shape[1]
    first = np.arange(len(answers.mask)) // SAMPLES % 2 == 0
    inputs = np.concatenate(
        [states.double().numpy(), np.broadcast_to(place, answers.mask.shape)[:, :, None]], axis=2
    )
    mask = answers.mask.numpy()
    for own in (first, ~first):
        known = ~own[:, None] & mask
        weights = ridge(
            torch.from_numpy(inputs[known]), returns.double()[torch.from_numpy(known)], 0.5
        ).numpy()
        expected = (inputs @ weights[:-1] + weights[-1]) * mask
        assert np.allclose(values.numpy()[own], expected[own], atol=1e-4)
    # What a prompt's own answers earn has no say in their values.
    returns[torch.from_numpy(first)] += 1.0
    again = critic.values(states, returns, answers)
    assert torch.equal(again[torch.from_numpy(first)], values[torch.from_numpy(first)])
    assert not torch.equal(again[torch.from_numpy(~first)], values[torch.from_numpy(~first)])


def test_ppo_rewards_tokens_for_staying_and_the_last_for_quality(talker, drawn):
    """GAE by its definition, from the critic's values."""
    critic, answers = Critic(kl=0.2, lam=0.8), drawn.answers
    found = critic(talker.model, drawn)
    rewards = -0.2 * (answers.log_probs - drawn.reference).numpy() * answers.mask.numpy()
    lengths = answers.mask.sum(1).numpy()
    quality = (0.3 * drawn.rewards[:, 0] + 0.7 * drawn.rewards[:, 1]).numpy()
    rewards[np.arange(12), lengths - 1] += quality
    returns = torch.from_numpy(np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1].copy())
    values = critic.values(hidden_states(talker.model, answers), returns, answers).numpy()
    advantages = np.zeros_like(rewards)
    for row, length in enumerate(lengths):
        following = np.append(values[row, 1:length], 0.0)
        deltas = rewards[row, :length] + following - values[row, :length]
        for t in range(length):
            advantages[row, t] = sum(0.8**k * deltas[t + k] for k in range(length - t))
    own = advantages[answers.mask.numpy()]
    expected = (advantages - own.mean()) / own.std(ddof=1) * answers.mask.numpy()
    assert np.allclose(found.token_columns["token_advantage"].numpy(), expected, atol=1e-3)
    assert found.notes["explained"] < 1.0
