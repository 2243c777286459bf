"""A decoder of under two million parameters, pretrained on this machine when first asked for.

It stands in for a causal language model where no hub can be reached: Llama shape, byte-level BPE,
trained on generated network-operations prose. The result is kept in the user's cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from airtune.learning.data import netops
from airtune.learning.quiet import quiet

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

VERSION = 1  # part of the cache's name: raise it when anything below changes
_STORIES, _VOCABULARY, _WIDTH, _LAYERS = 6000, 1024, 128, 4
_STEPS, _BATCH, _LENGTH, _LEARNING_RATE = 300, 16, 64, 3e-3


def folder() -> Path:
    """Return the folder of the pretrained decoder; build it first if need be (under a minute)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "airtune"
    final = cache / f"tiny-decoder-{VERSION}"
    if not final.exists():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix="building-"))
        try:
            build(scratch)
            # Two processes may build at once; the second finds the first's result and keeps it.
            if not final.exists():
                scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final


def build(target: Path, steps: int = _STEPS) -> None:
    """Train tokenizer and model into ``target``; deterministic for a given torch build."""
    texts = netops.corpus(_STORIES)
    tokenizer = _train_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _pretrain(tokenizer, texts, steps)
    with quiet():
        model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _pretrain(tokenizer: PreTrainedTokenizerFast, texts: list[str], steps: int) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM  # a run that has a model needs neither

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=_WIDTH,
        intermediate_size=3 * _WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    stream = [token for text in texts for token in [*tokenizer(text)["input_ids"], 2]]
    windows = torch.tensor(stream[: len(stream) // _LENGTH * _LENGTH]).view(-1, _LENGTH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (_BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model
