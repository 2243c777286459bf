"""Losses of alignment against TRL's own code, where it is installed: the extra `oracles`.

TRL keeps its formulas inside trainers. Here the trainers' methods run with a stand-in for the
trainer that has given log-probabilities or rewards, except for GRPO's advantages, which come from a
trainer with a tiny model. TRL 1.16 has no PPO trainer any more: of GAE it has nothing to compare
with; its clipped surrogate is GRPO's.
"""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from airtune.learning.alignment import losses

pytest.importorskip("trl", reason="trl is not installed: pip install 'airtune[oracles]'")

RNG = np.random.default_rng(1)
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"),
    num_processes=1,
    gather=lambda x: x,
    gather_for_metrics=lambda x: x,
    reduce=lambda x, reduction: x,
)


def draw(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def stand_in(**values):
    model = SimpleNamespace(training=False)
    metrics = {"eval": defaultdict(list)}
    return SimpleNamespace(
        model=model, accelerator=ACCELERATOR, aux_loss_enabled=False, _metrics=metrics,
        _total_train_tokens=0, **values,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo(beta):
    from trl import DPOTrainer

    pairs, length = 5, 9
    tokens = draw(2 * pairs, length - 1)  # of the policy; sums of them are an answer's
    reference = draw(2 * pairs)
    outputs = SimpleNamespace(
        log_probs=tokens,
        entropy=tokens,
        mean_logits=tokens,
        is_top1=tokens > 0,
    )
    trainer = stand_in(
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=["sigmoid"], loss_weights=[1.0], beta=beta, use_weighting=False,
    )  # fmt: skip
    ones = torch.ones(2 * pairs, length, dtype=torch.long)
    inputs = {
        "input_ids": ones, "attention_mask": ones, "completion_mask": ones,
        "ref_chosen_logps": reference[:pairs], "ref_rejected_logps": reference[pairs:],
    }  # fmt: skip
    expected = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    sums = tokens.sum(1)
    four = (sums[:pairs], sums[pairs:], reference[:pairs], reference[pairs:])
    found = losses.dpo(*[x.unsqueeze(0) for x in four], beta)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_pairwise():
    from trl import RewardTrainer

    rewards = draw(12, 1)
    trainer = stand_in(args=SimpleNamespace(center_rewards_coefficient=None))
    inputs = {"attention_mask": torch.ones(12, 4)}
    expected = RewardTrainer.compute_loss(
        trainer, lambda **_: SimpleNamespace(logits=rewards), inputs
    )
    found = losses.pairwise(rewards[:6].view(1, 6), rewards[6:].view(1, 6))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def grpo_loss(new, old, reference, advantages, mask, beta, clip):
    from trl import GRPOTrainer

    trainer = stand_in(
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token",
        beta=beta, loss_type="grpo", epsilon_low=clip, epsilon_high=clip, use_vllm=False,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None),
    )  # fmt: skip
    ids = torch.zeros(len(new), 2, dtype=torch.long)
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": torch.zeros_like(mask, dtype=int),
        "completion_mask": mask.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }  # fmt: skip
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_clipped_surrogate_and_the_estimate_of_kl(beta):
    rows, length, clip = 6, 10, 0.2
    new, old, reference = draw(rows, length), draw(rows, length), draw(rows, length)
    advantages = draw(rows)
    mask = torch.arange(length) < torch.from_numpy(RNG.integers(1, length + 1, size=(rows, 1)))
    new.requires_grad_()
    expected = grpo_loss(new, old, reference, advantages, mask, beta, clip)
    (slope,) = torch.autograd.grad(expected, new)
    each = losses.clipped_surrogate(
        new[None], old[None], advantages.view(1, rows, 1), mask[None], clip
    ) + beta * losses.kl_estimate(new[None], reference[None], mask[None])
    found = losses.sequence_mean(each, mask[None])
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    (own,) = torch.autograd.grad(found.sum(), new)
    assert torch.allclose(own, slope, atol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantages(scale, tiny_llama, tmp_path, monkeypatch):
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rewards = draw(8)
    prompts = datasets.Dataset.from_list([{"prompt": "show the interface"}] * 8)
    config = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=4, bf16=False,
        max_completion_length=4, scale_rewards=scale, report_to=[], beta=0.0, use_cpu=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        tiny_llama, lambda completions, **_: rewards.tolist(), args=config, train_dataset=prompts
    )
    output = trainer._generate_and_score_completions([prompts[i] for i in range(8)])
    found = losses.group_advantages(rewards.view(1, 2, 4), scale)
    assert torch.allclose(found.flatten(), output["advantages"].cpu(), atol=1e-6)


def test_entropy_and_log_probabilities():
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    logits = 3 * draw(4, 7, 50)
    labels = torch.from_numpy(RNG.integers(0, 50, size=(4, 7)))
    assert torch.allclose(losses.entropy(logits), entropy_from_logits(logits), atol=1e-6)
    found, _ = losses.answer_log_probs(logits, labels, 0.8)
    expected = selective_log_softmax(logits[:, :-1], labels[:, 1:], temperature=0.8)
    assert torch.allclose(found[:, 1:], expected, atol=1e-6)


def test_exact_divergence():
    from trl.experimental.server_distillation.server_distillation_trainer import _jsd_divergence

    logits, reference = draw(4, 7, 50), draw(4, 7, 50)
    reverse = _jsd_divergence(logits.log_softmax(-1), reference.log_softmax(-1), 1)
    assert torch.allclose(losses.exact_kl(logits, reference), reverse.sum(-1), atol=1e-6)
