"""Rewards learned from preferences: a frozen backbone, an adapter if wanted, and a scalar head.

A reward model is a classifier with one class (`load_backbone(..., "classification", 1, ...)` with
`model.pooling` last or mean), whose logit is the reward of a text; so it trains as all models do.
It is sent to clients once, as the bytes of ``to_bytes``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel, Adapter
from airtune.learning.alignment.losses import pairwise
from airtune.learning.data.examples import Examples
from airtune.learning.inputs import Inputs
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Pass, Phase
from airtune.learning.pooled import PooledClassifier
from airtune.learning.prediction import predict

_ROWS = 64  # of a pass


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

    def accuracy(self, pairs: Examples) -> float:
        """Return the share of pairs whose chosen text has the higher reward; ties count half."""
        lead = np.diff(-self.rewards(pairs), axis=1)
        return float(((lead > 0) + 0.5 * (lead == 0)).mean())

    def standardised(self, common: Examples) -> RewardModel:
        """Return the model whose rewards of ``common`` have zero mean and unit variance.

        Two models weigh alike only if they are standardised on the same texts.
        """
        raw = replace(self, mean=0.0, deviation=1.0).rewards(common)
        deviation = float(raw.std())
        if deviation == 0.0:
            raise UserError(
                "a reward model gives all texts of the common set one reward, so it cannot be "
                "standardised; train it longer, or give it other texts."
            )
        return replace(self, mean=float(raw.mean()), deviation=deviation)

    def to_bytes(self) -> bytes:
        """Return the model as a safetensors file: what is charged for sending it."""
        about = {
            "tokenizer": fingerprint(self.model.backbone.tokenizer),
            "backbone": self.model.backbone.name,
            "mean": repr(self.mean),
            "deviation": repr(self.deviation),
        }
        return save({n: t.contiguous() for n, t in self.tensors.items()}, metadata=about)

    @property
    def bits(self) -> int:
        """Bits of the model as it is sent."""
        return 8 * len(self.to_bytes())


def read(path: str | Path, model: AdaptedModel) -> RewardModel:
    """Return the reward model in a file; raise UserError if it does not belong to ``model``."""
    file = Path(path)
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{path}' cannot be read as a reward model: {error}.") from error
    if not {"tokenizer", "mean", "deviation"} <= set(about):
        raise UserError(f"'{path}' holds no reward model; give a file that one was written to.")
    if about["tokenizer"] != fingerprint(model.backbone.tokenizer):
        raise UserError(
            f"'{path}' was trained on tokens of '{about.get('backbone')}', and "
            f"'{model.backbone.name}' has another tokenizer; use it with its own model, or train "
            "one on these tokens."
        )
    expected = {name: value.shape for name, value in model.initial.items()}
    for name, value in tensors.items():
        if expected.get(name) != value.shape:
            raise UserError(
                f"'{path}' has a tensor '{name}' of shape {list(value.shape)}, which is none of "
                f"'{model.backbone.name}' with this adapter; describe the same model and adapter."
            )
    return RewardModel(model, tensors, float(about["mean"]), float(about["deviation"]))


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what tells tokenizers apart: a digest of their vocabulary and special tokens."""
    known = [sorted(tokenizer.get_vocab().items()), tokenizer.bos_token_id, tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def features(model: AdaptedModel, pairs: Examples) -> Tensor:
    """Return what the head reads of frozen texts, [pairs, 2, width], on the CPU.

    This is the pass that costs; heads of any number and decay can be fitted to what it gives.
    """
    module, texts = model.backbone.module, _texts(pairs)
    if not isinstance(module, PooledClassifier):
        raise UserError("model.pooling: a reward model reads a text by last or mean; set it.")
    found = torch.zeros(len(texts), module.classifier.in_features)
    for positions in texts.by_length(_ROWS):
        batch = {k: v.to(model.device) for k, v in texts.batch(positions).items()}
        with torch.inference_mode():
            found[torch.from_numpy(positions)] = module.features(
                batch["input_ids"], batch["attention_mask"]
            ).cpu()
    return found.view(len(pairs), 2, -1)


def fit_head(model: AdaptedModel, features: Tensor, decay: float) -> RewardModel:
    """Return the reward model whose head alone is trained, on ``features`` of pairs.

    ``mean_pairs -log sigmoid(w . (f+ - f-)) + decay / 2 ||w||^2``, solved to its minimum, which is
    unique; features are scaled to unit variance first, and the head scaled back.
    """
    scale = features.double().flatten(0, 1).std(0).clamp(min=1e-6)
    apart = (features[:, 0] - features[:, 1]).double() / scale
    weight = torch.zeros(apart.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")
    nothing = torch.zeros(1, len(apart), dtype=torch.float64)

    def loss() -> Tensor:
        solver.zero_grad()
        value = pairwise((apart @ weight)[None], nothing)[0]
        value = value + 0.5 * decay * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    head = next(name for name in model.head_names if name.endswith("weight"))
    return RewardModel(model, {head: (weight.detach() / scale).float().view(1, -1)})


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
