"""Helpfulness and safety learned once by the server; what is sent, and the judge that uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Self

import pandas as pd
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from airtune.config import Config
from airtune.errors import UserError, nearest
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment import reward_head
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.reward_head import Accuracy, RewardHead
from airtune.learning.alignment.scoring import pad_and_cap
from airtune.learning.backbone import Backbone
from airtune.learning.config import DataConfig
from airtune.learning.data.examples import tokenise
from airtune.learning.data.reading import read_file
from airtune.learning.data.sources import Table, load_table

NAMES = ("helpful", "safe")
_SECTION = "method.rewards"


class RewardData(Config):
    """What one reward is learned from, or the file of a reward that was."""

    train: str | None = Field(None, description="file of pairs: CSV, JSONL or Parquet (.gz too)")
    test: str | None = Field(None, description="likewise; default: a tenth of train")
    prompt: str | list[str] | None = Field(
        None,
        description="column(s) of the prompt; without, chosen and rejected are whole dialogues",
    )
    chosen: str = Field("chosen", description="column of the preferred answer")
    rejected: str = Field("rejected", description="column of the answer that it is preferred to")
    limit: PositiveInt | None = Field(None, description="learn from only so many pairs")
    decay: PositiveFloat = Field(0.01, description="weight of ||w||^2 / 2 beside the loss")
    file: str | None = Field(
        None,
        description="a reward that a run kept in its folder rewards, for the same model; then none "
        "is learned",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.train is None) == (self.file is None):
            raise ValueError("a reward has pairs to learn from (train) or a file: give one.")
        unused = sorted(self.model_fields_set - {"train", "file"})
        if self.file is not None and unused:
            raise ValueError(f"file is of a reward learned before: leave {unused[0]} out.")
        return self


class LearnedRewardsConfig(Config):
    """Two rewards from preferences, on one scale."""

    helpful: RewardData
    safe: RewardData
    common: str | None = Field(
        None,
        description="file with a column text: rewards of these texts get mean 0 and variance 1; "
        "default: the chosen answers that are learned from, behind their prompts",
    )
    max_tokens: int = Field(128, ge=8, description="longer texts are cut to this many tokens")


@dataclass(frozen=True)
class LearnedRewards:
    """The judge of answers by the two heads that the server sent, ``Learned.tensors``.

    It reads prompt and answer with the policy's own frozen backbone, which takes no more memory.
    """

    reads: ClassVar[bool] = True

    def __call__(self, model: AdaptedModel, answers: Answers, told: Mapping[str, Tensor]) -> Tensor:
        """Return helpfulness and safety, [prompts * samples, 2], in units of the common texts."""
        read = reward_head.features(model.backbone, answers.examples(*pad_and_cap(model)))
        rewards = [RewardHead.told(name, told).rewards(read) for name in NAMES]
        return torch.stack(rewards, dim=-1).float()


@dataclass(frozen=True, eq=False)
class Learned:
    """The server's two heads by name, and how those that it learned order held-out pairs."""

    heads: Mapping[str, RewardHead]
    accuracy: Mapping[str, Accuracy]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is sent, once: four tensors in float32, 2 width + 4 numbers."""
        return {k: v for name in NAMES for k, v in self.heads[name].tensors(name).items()}


def learn(config: LearnedRewardsConfig, backbone: Backbone, seed: int) -> Learned:
    """Return the two rewards that the server learns, or reads, with the clients' backbone.

    Each head is the minimum of a convex problem on features that are computed once; ``seed``
    decides which pairs ``limit`` leaves. Both are standardised on the same texts; rewards from two
    files stay as they were written if no common texts are named.
    """
    limit = min(config.max_tokens, backbone.longest)
    heads: dict[str, RewardHead] = {}
    found: dict[str, Accuracy] = {}
    common: list[Tensor] = []
    for name in NAMES:
        data: RewardData = getattr(config, name)
        if data.file is not None:
            with _naming(f"{name}.file"):
                heads[name] = reward_head.read(data.file, backbone)
            continue
        with _naming(name):
            table = _pairs(data, seed)
        learned, held_out = (
            reward_head.features(backbone, tokenise(frame, "causal", backbone.tokenizer, limit))
            for frame in (table.train, table.test)
        )
        heads[name] = reward_head.fit_head(learned, data.decay)
        found[name] = reward_head.accuracy(heads[name].rewards(held_out).numpy())
        common.append(learned[:, 0])
    if config.common is not None:
        texts = tokenise(_texts(config.common), "causal", backbone.tokenizer, limit)
        common = [reward_head.features(backbone, texts)]
    for name, head in heads.items():
        if common:
            with _naming(name):
                heads[name] = head.standardised(torch.cat(common))
        elif (head.mean, head.deviation) == (0.0, 1.0):
            raise UserError(
                f"{_SECTION}.{name}.file: this reward was never standardised, so the two would not "
                f"weigh alike; give texts as {_SECTION}.common."
            )
    return Learned(heads, found)


def check(config: LearnedRewardsConfig, backbone: Backbone, seed: int) -> None:
    """Raise UserError for files that no reward can be learned from, or that hold no such reward."""
    for name in NAMES:
        data: RewardData = getattr(config, name)
        with _naming(name if data.file is None else f"{name}.file"):
            if data.file is None:
                _pairs(data, seed)
            else:
                reward_head.read(data.file, backbone)
    if config.common is not None:
        _texts(config.common)


def shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is sent, by name."""
    width = int(backbone.module.config.get_text_config().hidden_size)
    return {
        f"{n}.{part}": s for n in NAMES for part, s in (("weight", (1, width)), ("scale", (2,)))
    }


def _pairs(data: RewardData, seed: int) -> Table:
    values = data.model_dump(include={"train", "test", "prompt", "chosen", "rejected"})
    return load_table(DataConfig(train_limit=data.limit, **values), seed)


def _texts(path: str) -> pd.DataFrame:
    """Return the texts of a file as answers without prompts."""
    key = f"{_SECTION}.common"
    frame = read_file(path, key)
    if "text" not in frame.columns:
        hint = nearest("text", map(str, frame.columns))
        raise UserError(f"{key}: '{path}' has no column 'text'; {hint}")
    if not frame["text"].map(lambda text: isinstance(text, str)).all():
        raise UserError(f"{key}: column 'text' of '{path}' has rows without a text; drop them.")
    return pd.DataFrame({"_prompt": "", "_text": frame["text"]})


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Let errors say of which reward they are: the reader of pairs knows a section data only."""
    try:
        yield
    except UserError as error:
        said = str(error).removeprefix("data.")
        between = "." if said.split(":")[0] in RewardData.model_fields else ": "
        raise UserError(f"{_SECTION}.{key}{between}{said}") from error
