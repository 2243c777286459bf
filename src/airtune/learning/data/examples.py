"""Tokenised examples, ragged in memory, padded only when a batch is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
_IDS_ONLY = {"return_attention_mask": False, "return_token_type_ids": False}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Token sequences and what is to be learned of them.

    ``tokens`` holds all sequences end to end, ``offsets`` [n + 1] where each starts;
    ``targets`` [n] is the class, or the position at which the response starts. ``columns`` are
    further values [n, ...] that go into batches by their names: a teacher's logits, say;
    ``token_columns`` likewise have values for every token, [tokens, ...].
    """

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    task: Task
    pad: int
    cap: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    token_columns: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, [n]."""
        return np.diff(self.offsets)

    def padded(self, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths of batches whose longest sequences are ``lengths``."""
        return np.minimum(-(-lengths // _BUCKET) * _BUCKET, self.cap)

    def places(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each token of a batch lies in ``tokens``, and whether it is one.

        Both are [rows, length]; behind a sequence's end its last token's place is repeated.
        """
        position = np.arange(length)
        own = self.lengths[rows][:, None]
        return self.offsets[rows][:, None] + np.minimum(position, own - 1), position < own

    def batch(self, rows: np.ndarray, length: int) -> dict[str, Tensor]:
        """Return input_ids, attention_mask [rows, length], labels and the columns of rows.

        Behind a sequence's end stands what its last token has in the columns of tokens.
        """
        places, real = self.places(rows, length)
        ids = np.where(real, self.tokens[places], self.pad).astype(np.int64)
        labels = self.targets[rows].astype(np.int64)
        if self.task == "causal":
            labels = np.where(real & (np.arange(length) >= labels[:, None]), ids, IGNORED)
        batch = {"input_ids": ids, "attention_mask": real.astype(np.int64), "labels": labels}
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        tensors |= {name: column[rows] for name, column in self.columns.items()}
        return tensors | {name: column[places] for name, column in self.token_columns.items()}

    def predicted(self) -> np.ndarray:
        """Return the places in ``tokens`` from which a causal model predicts what it is to learn.

        They are those before a token of the response, of all sequences in order.
        """
        starts = np.repeat(self.offsets[:-1], self.lengths)
        position = np.arange(len(self.tokens)) - starts
        last = position == np.repeat(self.lengths, self.lengths) - 1
        return np.flatnonzero(~last & (position + 1 >= np.repeat(self.targets, self.lengths)))


@dataclass(frozen=True, eq=False)
class Examples:
    """A selection of a corpus: one client's data, a test set.

    ``rows`` is [n]; or [n, group] where an example is several sequences, such as a chosen and a
    rejected answer: then they follow one another in a batch.
    """

    corpus: Corpus
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sequences(self) -> int:
        """Sequences of one example."""
        return 1 if self.rows.ndim == 1 else int(self.rows.shape[1])

    def select(self, rows: np.ndarray) -> Examples:
        """Return these rows of the corpus, sharing its memory."""
        return Examples(self.corpus, rows)

    def at(self, positions: np.ndarray) -> Examples:
        """Return the examples at these positions, sharing the corpus' memory."""
        return Examples(self.corpus, self.rows[positions])

    @property
    def first(self) -> Examples:
        """Each example's first sequence: of a pair the chosen answer."""
        return self if self.rows.ndim == 1 else Examples(self.corpus, self.rows[:, 0])

    def lengths(self) -> np.ndarray:
        """Tokens of each example; of its longest sequence where it has several."""
        lengths = self.corpus.lengths[self.rows]
        return lengths if lengths.ndim == 1 else lengths.max(axis=1)

    def padded_lengths(self, positions: np.ndarray) -> np.ndarray:
        """Return the lengths [batches] of batches of these examples, [batches, size].

        A batch is as long as its own longest sequence, rounded up to 8: a function of the
        client's rows alone, so a client's numbers do not depend on who trains beside it.
        """
        return self.corpus.padded(self.lengths()[positions].max(axis=-1))

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """Return the batch of the examples at ``positions``."""
        length = int(self.padded_lengths(positions))
        return self.corpus.batch(self.rows[positions].reshape(-1), length)

    def by_length(self, size: int) -> Iterator[np.ndarray]:
        """Yield positions of every example once, similar lengths together, ``size`` at a time."""
        order = np.argsort(self.lengths(), kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]


def tokenise(
    frame: pd.DataFrame, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int
) -> Examples:
    """Tokenise a table's rows once, cut to ``limit`` tokens; rows keep their order.

    Preferences become examples of two sequences, chosen and rejected, behind the same prompt.
    """
    from airtune.learning.quiet import quiet

    texts = frame["_text"].tolist()
    pad = tokenizer.pad_token_id or 0
    if not texts:  # the tokenizer takes no empty list
        return pack([], np.empty(0, dtype=np.int64), task, pad, limit)
    with quiet():  # the tokenizer would warn of long texts, which are cut below
        if task == "classification":
            options = {"truncation": True, "max_length": limit, **_IDS_ONLY}
            sequences = tokenizer(texts, **options)["input_ids"]
            # Public texts have no label.
            targets = frame.get("_label", pd.Series(IGNORED, frame.index)).to_numpy(dtype=np.int64)
        else:
            answers = [texts]
            if "_rejected" in frame.columns:
                answers.append(frame["_rejected"].tolist())
            sequences, targets = _causal(frame["_prompt"].tolist(), answers, tokenizer, limit)
    # A text without any token, where a tokenizer adds none of its own, is one of padding.
    packed = pack([s or [pad] for s in sequences], targets, task, pad, limit)
    pairs = "_rejected" in frame.columns
    return packed.select(packed.rows.reshape(-1, 2)) if pairs else packed


def pack(
    sequences: Sequence[Sequence[int]], targets: np.ndarray, task: Task, pad: int, cap: int
) -> Examples:
    """Lay token sequences end to end."""
    lengths = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter((t for s in sequences for t in s), dtype=np.int32, count=int(offsets[-1]))
    corpus = Corpus(tokens, offsets, targets, task, pad, cap)
    return Examples(corpus, np.arange(len(sequences)))


def _causal(
    prompts: list[str],
    answers: list[list[str | None]],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> tuple[list[list[int]], np.ndarray]:
    """Return [start] prompt response [end], and where the response begins.

    Prompt and response are tokenised apart so that the border is exact. A prompt too long to leave
    room loses its beginning: at least half of the window belongs to the response. ``answers`` are
    one or more columns; those of a row follow one another, behind the same part of its prompt.
    Behind a prompt whose answer is None stands nothing.
    """
    plain = {"add_special_tokens": False, **_IDS_ONLY}
    prompt_ids = tokenizer(prompts, **plain)["input_ids"]
    columns = [tokenizer([t or "" for t in texts], **plain)["input_ids"] for texts in answers]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tails = [
        [[] if text is None else [*ids, *end] for text, ids in zip(*both, strict=True)]
        for both in zip(answers, columns, strict=True)
    ]
    sequences, begins = [], []
    for prompt, *texts in zip(prompt_ids, *tails, strict=True):
        longest = max(len(text) for text in texts)
        room = max(limit - len(start) - longest, limit // 2 - len(start))
        head = [*start, *(prompt[-room:] if room > 0 else [])]
        for text in texts:
            sequences.append([*head, *text][:limit])
            begins.append(len(head))
    return sequences, np.asarray(begins, dtype=np.int64)
