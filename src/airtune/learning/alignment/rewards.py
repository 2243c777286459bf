"""Two rewards of generated answers: how helpful, and how safe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.topics import CALM, RISKY, Objectives, Prompt


class Rewards(Protocol):
    """What judges answers; equal ones judge alike, so that clients who have them share passes.

    ``reads`` says whether judging takes a pass over prompt and answer, which is charged.
    """

    reads: ClassVar[bool]

    def __call__(self, model: AdaptedModel, answers: Answers, told: Mapping[str, Tensor]) -> Tensor:
        """Return helpfulness and safety, [prompts * samples, 2].

        ``model`` is the client's, without any adapter of its own in mind; ``told`` are the tensors
        that the server sent for judging, by name, none where judging needs none.
        """
        ...


@dataclass(frozen=True)
class TopicRewards:
    """The rewards of the built-in topics, which a program computes from prompt and answer."""

    reads: ClassVar[bool] = False
    task: Objectives

    def __call__(self, model: AdaptedModel, answers: Answers, told: Mapping[str, Tensor]) -> Tensor:
        """Return helpfulness and safety, [prompts * samples, 2], each in [0, 1]."""
        del told
        tokenizer = model.backbone.tokenizer
        asked = [
            about(text)
            for text in tokenizer.batch_decode(answers.prompts, skip_special_tokens=True)
            for _ in range(answers.samples)
        ]
        return torch.from_numpy(self.task.rewards(asked, answers.texts(tokenizer))).float()


def about(text: str) -> Prompt:
    """Return a prompt with the topic that it names; raise UserError where there is none."""
    for word in re.findall("[a-z]+", text.lower()):
        if word in CALM or word in RISKY:
            return Prompt(text, word, word in RISKY, held_out=False)
    raise UserError(
        f"method.rewards: the prompt '{text.strip()}' names none of the built-in topics, so its "
        "answers cannot be judged; use data.name: topics, rewards that are learned, or, with dpo "
        "on pairs, rewards: null."
    )
