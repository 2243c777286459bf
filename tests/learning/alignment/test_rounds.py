"""What is generated is learned from: sampling, rewards, advantages and training, in cohorts."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment import losses
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.policy import Policy
from airtune.learning.alignment.scoring import log_probs
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig, TrainConfig
from airtune.learning.data.examples import pack
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Made, Phase

PROMPTS = [[1, 20, 30], [1, 44, 5, 60, 71], [1, 9]]
SAMPLING = Sampling(samples=8, tokens=10, stop=(7,))


def reward(model, answers):
    """The share of an answer's tokens that the output layer's first column favours."""
    liked = model.backbone.module.lm_head.weight[:, 0] > 0
    return (liked[answers.tokens] & answers.mask).sum(1) / answers.mask.sum(1)


def answer(model, drafts):
    """Make each client's answers, with their advantages, from the adapter that it has now."""
    requests = [
        Request(d.adapter, PROMPTS, range(len(PROMPTS)), (d.client, d.round, d.index))
        for d in drafts
    ]
    made = []
    for own in generate(model, requests, SAMPLING, seed=3):
        gained = reward(model, own)
        advantage = losses.group_advantages(gained.view(1, len(PROMPTS), -1), "batch")
        make = partial(own.examples, 0, 64, {"advantage": advantage.flatten()})
        reference = log_probs(model, make(), None)
        examples = make({"old": own.log_probs})
        examples.corpus.token_columns["reference"] = reference
        made.append(Made(examples, int(own.mask.sum()), {"reward": float(gained.mean())}))
    return made


def run(learner, clients, steps):
    """Let clients take GRPO steps on their own answers; return adapters and mean rewards."""
    prompts = pack(PROMPTS, np.zeros(len(PROMPTS), dtype=np.int64), "causal", 0, 64)
    rows = len(PROMPTS) * SAMPLING.samples
    phase = Phase(
        prompts, Policy(clip=0.2, kl=0.02), 1, batch_size=rows, goes_on=True, maker=answer
    )
    tasks = [Assignment(c, 0, dict(learner.model.initial), [phase] * steps) for c in clients]
    for _ in learner.train(tasks):
        pass
    for task in tasks:
        assert not task.diverged
        assert 8 * steps <= task.predicted_tokens <= steps * rows * SAMPLING.tokens
    return (
        {task.client: task.adapter for task in tasks},
        {task.client: [notes["reward"] for notes in task.made] for task in tasks},
    )


@pytest.fixture(scope="module")
def learner(tiny_llama, tmp_path_factory):
    """A learner of a random model whose adapters can change what it says: its weights are large."""
    folder = tmp_path_factory.mktemp("talker")
    shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)
    config = LlamaConfig.from_pretrained(tiny_llama, initializer_range=0.2)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    config = ModelConfig(name=str(folder))
    backbone = load_backbone(config, "causal", None, torch.device("cpu"))
    model = AdaptedModel(backbone, AdapterConfig(rank=4), "causal", seed=0)
    return Learner(model, TrainConfig(learning_rate=3e-2), 0, MachineConfig(cohort=3))


def test_rewards_rise(learner):
    _, rewards = run(learner, [0, 1, 2], steps=20)
    gains = [sum(own[-4:]) / 4 - sum(own[:2]) / 2 for own in rewards.values()]
    assert min(gains) > 0.03
    assert sum(gains) / 3 > 0.1


def test_clients_learn_side_by_side_what_they_learn_alone(learner):
    together, _ = run(learner, [0, 1, 2], steps=2)
    for client in range(3):
        alone, _ = run(learner, [client], steps=2)
        for name, value in alone[client].items():
            assert torch.equal(value, together[client][name]), name
    assert not torch.equal(
        *(torch.cat([v.flatten() for v in together[c].values()]) for c in (0, 1))
    )
