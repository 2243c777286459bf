"""Rewards learned from preferences: a frozen backbone, an adapter, and a scalar head.

A reward model is a classifier with one class (`load_backbone(..., "classification", 1, ...)` with
`model.pooling` last or mean), whose logit is the reward of a text; so it trains as all models do.
Where the head alone is trained, `reward_head.py` does with less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment import reward_files
from airtune.learning.alignment.losses import pairwise
from airtune.learning.alignment.reward_head import Accuracy, accuracy, scale_of
from airtune.learning.data.examples import Examples
from airtune.learning.inputs import Inputs
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Pass, Phase
from airtune.learning.prediction import predict


@dataclass(frozen=True)
class RewardModel:
    """``(r(text) - mean) / deviation``; ``tensors`` are those that were trained.

    What training left as it started is not among them, and is not sent: whoever has the same
    experiment has it too.
    """

    model: AdaptedModel
    tensors: Adapter
    mean: float = 0.0
    deviation: float = 1.0

    def rewards(self, examples: Examples) -> np.ndarray:
        """Return the rewards of whole texts, [examples], or [examples, 2] of pairs.

        Causal examples will do: prompt and answer are read together.
        """
        texts = _texts(examples)
        found = np.zeros(len(texts))
        adapter = {**self.model.initial, **self.tensors}
        # Without a cache of hidden states: it would keep those of every answer ever generated.
        for seen in predict(self.model, Inputs(self.model, 0), adapter, texts, None):
            found[seen.positions] = seen.logits[:, 0].double().cpu().numpy()
        return (found.reshape(examples.rows.shape) - self.mean) / self.deviation

    def accuracy(self, pairs: Examples) -> Accuracy:
        """Return how often the chosen text has the higher reward."""
        return accuracy(self.rewards(pairs))

    def standardised(self, common: Examples) -> RewardModel:
        """Return the model whose rewards of ``common`` have zero mean and unit variance."""
        mean, deviation = scale_of(replace(self, mean=0.0, deviation=1.0).rewards(common))
        return replace(self, mean=mean, deviation=deviation)

    def to_bytes(self) -> bytes:
        """Return the model as a safetensors file: what is charged for sending it."""
        stored = reward_files.Stored(self.tensors, self.mean, self.deviation)
        return reward_files.to_bytes(stored, self.model.backbone)

    @property
    def bits(self) -> int:
        """Bits of the model as it is sent."""
        return 8 * len(self.to_bytes())


def read(path: str | Path, model: AdaptedModel) -> RewardModel:
    """Return the reward model in a file; raise UserError if it does not belong to ``model``."""
    stored = reward_files.read(path, model.backbone)
    expected = {name: value.shape for name, value in model.initial.items()}
    for name, value in stored.tensors.items():
        if expected.get(name) != value.shape:
            raise UserError(
                f"'{path}' has a tensor '{name}' of shape {list(value.shape)}, which is none of "
                f"'{model.backbone.name}' with this adapter; describe the same model and adapter."
            )
    return RewardModel(model, dict(stored.tensors), stored.mean, stored.deviation)


def train(learner: Learner, pairs: Examples, steps: int, batch_size: int) -> RewardModel:
    """Return the reward model whose adapter and head are trained by ``learner``."""
    texts = Examples(_texts(pairs).corpus, pairs.rows)
    phase = Phase(texts, preferred, steps, batch_size=batch_size)
    task = Assignment(0, 0, dict(learner.model.initial), [phase])
    for _ in learner.train([task]):
        pass
    if task.diverged:
        raise UserError("train.learning_rate: a reward model's training diverged; lower it.")
    return RewardModel(learner.model, task.adapter)


def preferred(step: Pass) -> Tensor:
    """Return each slot's loss of pairs of texts that follow one another, chosen and rejected."""
    rewards = step.logits().view(step.slots, -1, 2)
    return pairwise(rewards[..., 0], rewards[..., 1])


def _texts(examples: Examples) -> Examples:
    """Return the sequences of examples as texts to be read as a whole, one after another."""
    nothing = np.zeros_like(examples.corpus.targets)
    corpus = replace(examples.corpus, task="classification", targets=nothing)
    return Examples(corpus, examples.rows.reshape(-1))
