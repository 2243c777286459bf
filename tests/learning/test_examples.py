"""Tokenised examples against what a tokenizer and hand-made padding give."""

from __future__ import annotations

import numpy as np
import pandas as pd
from transformers import AutoTokenizer

from airtune.learning.data.examples import IGNORED, pack, tokenise


def test_batches_pad_to_their_own_longest_rounded_up_to_eight():
    data = pack([[5, 6, 7], [8] * 9, [9]], np.array([0, 1, 2]), "classification", 0, 64)
    short = data.batch(np.array([0, 2]))
    assert short["input_ids"].tolist() == [[5, 6, 7, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0]]
    assert short["attention_mask"].sum(1).tolist() == [3, 1]
    assert short["labels"].tolist() == [0, 2]
    assert data.batch(np.array([1]))["input_ids"].shape == (1, 16)
    assert pack([[8] * 9], np.array([0]), "causal", 0, 10).batch(np.array([0]))[
        "input_ids"
    ].shape == (1, 10)


def test_loss_falls_on_the_response_only(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    frame = pd.DataFrame({"_prompt": ["show the latency\n"], "_text": ["it is high"]})
    data = tokenise(frame, "causal", tokenizer, 64)
    batch = data.batch(np.array([0]))
    prompt = tokenizer("show the latency\n", add_special_tokens=False)["input_ids"]
    answer = tokenizer("it is high", add_special_tokens=False)["input_ids"]
    length = 1 + len(prompt) + len(answer) + 1
    expected = [tokenizer.bos_token_id, *prompt, *answer, tokenizer.eos_token_id]
    assert batch["input_ids"][0, :length].tolist() == expected
    labels = batch["labels"][0].tolist()
    assert labels[: 1 + len(prompt)] == [IGNORED] * (1 + len(prompt))
    assert labels[1 + len(prompt) : length] == [*answer, tokenizer.eos_token_id]
    assert set(labels[length:]) <= {IGNORED}


def test_a_long_prompt_loses_its_beginning_and_keeps_room_for_the_response(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    frame = pd.DataFrame({"_prompt": ["cell " * 100], "_text": ["it is high " * 3]})
    data = tokenise(frame, "causal", tokenizer, 20)
    assert data.lengths().tolist() == [20]
    assert (data.batch(np.array([0]))["labels"] != IGNORED).sum() >= 9


def test_a_text_without_any_token_is_one_of_padding():
    class Bare:
        pad_token_id = 7

        def __call__(self, texts, **options):
            return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    frame = pd.DataFrame({"_text": ["", "3 4"], "_label": [0, 1]})
    data = tokenise(frame, "classification", Bare(), 20)
    assert data.lengths().tolist() == [1, 2]
    assert data.batch(np.array([0]))["input_ids"][0].tolist() == [7] * 8


def test_every_example_is_evaluated_once():
    sequences = [[1] * n for n in (3, 30, 7, 12, 1)]
    data = pack(sequences, np.zeros(5, dtype=int), "classification", 0, 64)
    seen = np.concatenate(list(data.by_length(2)))
    assert sorted(seen) == [0, 1, 2, 3, 4]
