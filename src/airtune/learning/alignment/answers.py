"""Generated answers, and the examples that are learned from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from airtune.learning.data.examples import Examples, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answers:
    """A client's answers, ``samples`` for each prompt, prompt after prompt; rows are answers.

    ``tokens``, ``mask`` (True up to the token that ended the answer) and ``log_probs`` of the
    tokens under the policy that they were drawn from are [prompts * samples, longest answer].
    """

    prompts: Sequence[Sequence[int]]
    samples: int
    tokens: Tensor
    mask: Tensor
    log_probs: Tensor

    @classmethod
    def trimmed(
        cls,
        prompts: Sequence[Sequence[int]],
        samples: int,
        tokens: Tensor,
        mask: Tensor,
        log_probs: Tensor,
    ) -> Answers:
        """Return answers without columns in which all of them have ended."""
        longest = int(mask.sum(1).max())
        kept = (x[:, :longest].clone() for x in (tokens, mask, log_probs))
        return cls(prompts, samples, *kept)

    @classmethod
    def of(cls, examples: Examples) -> Answers:
        """Return given answers, one for each prompt, in the order of the examples [n]."""
        corpus, rows = examples.corpus, examples.rows
        starts, lengths = corpus.targets[rows], corpus.lengths[rows]
        counts = np.maximum(lengths - starts, 0)
        mask = torch.from_numpy(np.arange(max(counts.max(initial=1), 1)) < counts[:, None])
        tokens = torch.full(mask.shape, corpus.pad, dtype=torch.long)
        prompts = []
        for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
            own = corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]]
            prompts.append(own[:start].tolist())
            tokens[place, : counts[place]] = torch.from_numpy(own[start:].astype(np.int64))
        return cls(prompts, 1, tokens, mask, torch.zeros(mask.shape))

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Return the answers as text, without prompts and special tokens."""
        rows = [row[own].tolist() for row, own in zip(self.tokens, self.mask, strict=True)]
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))

    def examples(
        self,
        pad: int,
        cap: int,
        columns: Mapping[str, Tensor] | None = None,
        token_columns: Mapping[str, Tensor] | None = None,
    ) -> Examples:
        """Return prompt and answer as sequences to learn from, the answer's tokens labelled.

        ``columns`` are values of answers, [rows, ...]; ``token_columns`` values of their tokens,
        [rows, longest answer], zero on prompts. ``cap`` is the most tokens of a batch's row.
        """
        lengths = self.mask.sum(1).tolist()
        heads = [prompt for prompt in self.prompts for _ in range(self.samples)]
        sequences = [
            [*head, *row[:length].tolist()]
            for head, row, length in zip(heads, self.tokens, lengths, strict=True)
        ]
        starts = np.array([len(head) for head in heads], dtype=np.int64)
        packed = pack(sequences, starts, "causal", pad, cap)
        corpus = packed.corpus
        at = np.concatenate(
            [
                np.arange(s, e)
                for s, e in zip(corpus.offsets[:-1] + starts, corpus.offsets[1:], strict=True)
            ]
        )
        laid = {}
        for name, values in (token_columns or {}).items():
            laid[name] = values.new_zeros(len(corpus.tokens))
            laid[name][torch.from_numpy(at)] = values[self.mask]
        corpus = replace(corpus, columns=dict(columns or {}), token_columns=laid)
        return Examples(corpus, packed.rows)
