"""Tokenised examples, ragged in memory, padded only when a batch is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from airtune.learning.config import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a label that takes no part in the loss
_BUCKET = 8  # lengths are rounded up to a multiple of this


@dataclass(frozen=True)
class Examples:
    """Token sequences and what is to be learned of them.

    ``tokens`` holds all sequences end to end, ``offsets`` [n + 1] where each starts;
    ``targets`` [n] is the class, or the position at which the response starts. ``rows`` selects.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    task: Task
    pad: int
    cap: int

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: np.ndarray) -> Examples:
        """Return these rows of the whole, sharing its memory."""
        return replace(self, rows=rows)

    def lengths(self) -> np.ndarray:
        """Tokens of each selected example."""
        return self.offsets[self.rows + 1] - self.offsets[self.rows]

    def padded_length(self, positions: np.ndarray) -> int:
        """Return the length of a batch of these examples: its longest, rounded up to 8."""
        longest = int(self.lengths()[positions].max())
        return min(-(-longest // _BUCKET) * _BUCKET, self.cap)

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """Return input_ids, attention_mask [rows, length] and labels for selected examples.

        The length is this batch's own maximum, rounded up to a multiple of 8: a function of the
        client's rows alone, so a client's numbers do not depend on who trains beside it.
        """
        rows = self.rows[positions]
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        length = self.padded_length(positions)
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[row, : end - start] = self.tokens[start:end]
            mask[row, : end - start] = 1
        labels = self.targets[rows].astype(np.int64)
        if self.task == "causal":
            position = np.arange(length)
            counted = (position >= labels[:, None]) & (mask == 1)
            labels = np.where(counted, ids, IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
        }

    def batches_by_length(self, size: int) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Yield every example once, similar lengths together, with the positions they came from."""
        order = np.argsort(self.lengths(), kind="stable")
        for start in range(0, len(order), size):
            positions = order[start : start + size]
            yield positions, self.batch(positions)


def tokenise(
    frame: pd.DataFrame, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int
) -> Examples:
    """Tokenise a table's rows once, cut to ``limit`` tokens; rows keep their order."""
    from airtune.learning.quiet import quiet

    texts = frame["_text"].tolist()
    with quiet():  # the tokenizer would warn of long texts, which are cut below
        if task == "classification":
            sequences = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
            targets = frame["_label"].to_numpy(dtype=np.int64)
        else:
            sequences, targets = _causal(frame["_prompt"].tolist(), texts, tokenizer, limit)
    return pack(sequences, targets, task, tokenizer.pad_token_id or 0, limit)


def pack(
    sequences: Sequence[Sequence[int]], targets: np.ndarray, task: Task, pad: int, cap: int
) -> Examples:
    """Lay token sequences end to end."""
    lengths = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter((t for s in sequences for t in s), dtype=np.int32, count=int(offsets[-1]))
    return Examples(tokens, offsets, targets, np.arange(len(sequences)), task, pad, cap)


def _causal(
    prompts: list[str], texts: list[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], np.ndarray]:
    """Return [start] prompt response [end], and where the response begins.

    Prompt and response are tokenised apart so that the border is exact. A prompt too long to leave
    room loses its beginning: at least half of the window belongs to the response.
    """
    plain = {"add_special_tokens": False}
    prompt_ids = tokenizer(prompts, **plain)["input_ids"]
    text_ids = tokenizer(texts, **plain)["input_ids"]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    sequences, begins = [], []
    for prompt, text in zip(prompt_ids, text_ids, strict=True):
        answer = [*text, *end]
        room = max(limit - len(start) - len(answer), limit // 2 - len(start))
        head = [*start, *(prompt[-room:] if room > 0 else [])]
        sequences.append([*head, *answer][:limit])
        begins.append(len(head))
    return sequences, np.asarray(begins, dtype=np.int64)
