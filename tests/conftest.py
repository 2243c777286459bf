"""Small models and data that every floor's tests share; nothing is downloaded."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from airtune.learning.data import netops

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared():
    """Function that returns real data or a real model beside the checkout, or skips the test."""

    def find(path):
        found = SHARED / path
        if not found.exists():
            pytest.skip(f"the real input ../shared/{path} is not beside this checkout")
        return found

    return find


@pytest.fixture
def browse(tmp_path):
    """Function that opens a page in headless Chromium; returns final DOM and script errors."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not on PATH, so no browser can open the report")

    def visit(page):
        done = subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return visit


@pytest.fixture(scope="session")
def frames():
    """(train, test) of 240 and 60 network-operations requests with eight intents."""
    train, test = netops.generate()
    labels = sorted(train["label"].unique())[:8]
    few = [frame[frame["label"].isin(labels)] for frame in (train, test)]
    return few[0].head(240).reset_index(drop=True), few[1].head(60).reset_index(drop=True)


@pytest.fixture(scope="session")
def data_files(frames, tmp_path_factory):
    """The frames as CSV files: (train, test) paths."""
    folder = tmp_path_factory.mktemp("data")
    paths = folder / "train.csv", folder / "test.csv"
    for frame, path in zip(frames, paths, strict=True):
        frame.to_csv(path, index=False)
    return tuple(str(path) for path in paths)


def _tokenizer(texts):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=400, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=64,
    )


@pytest.fixture(scope="session")
def tiny_encoder(frames, tmp_path_factory):
    """Folder of a random two-layer BERT of width 32, a sentence encoder with mean pooling."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    _tokenizer(frames[0]["text"]).save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, ["", "1_Pooling", "2_Normalize"], strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": True})
    )
    return str(folder)


@pytest.fixture(scope="session")
def tiny_llama(frames, tmp_path_factory):
    """Folder of a random two-layer Llama of width 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(frames[0]["text"]).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_talker(tiny_llama, tmp_path_factory):
    """Folder of the same Llama with the words of the built-in topics, and larger weights.

    So its adapters can change what it says.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from airtune.learning.alignment.topics import CARING, UNSAFE, prompts

    folder = tmp_path_factory.mktemp("talker")
    words = [" ".join(sorted(CARING | UNSAFE)), *(prompt.text for prompt in prompts())]
    _tokenizer(words).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(tiny_llama, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small(tiny_encoder, tiny_llama, tiny_talker, data_files):
    """Function that returns a small experiment's values; sections given are merged in."""

    def values(task="classification", **sections):
        data = {"name": "small", "train": data_files[0], "test": data_files[1]}
        if task == "causal":
            data |= {"prompt": "prompt", "response": "response"}
        if task == "topics":
            data = {"name": "topics"}
        models = {"classification": tiny_encoder, "causal": tiny_llama, "topics": tiny_talker}
        base = {
            "name": "small",
            "model": {"name": models[task]},
            "adapter": {"rank": 4},
            "data": data,
            "clients": {"count": 5, "partition": "iid"},
            "cell": {"preset": "urban-micro"},
            "train": {
                "rounds": 3,
                "local_steps": 2,
                "batch_size": 8,
                "learning_rate": 1e-2,
                "evaluate_every": 1,
            },
        }
        for name, section in sections.items():
            merged = isinstance(section, dict) and isinstance(base.get(name), dict)
            base[name] = {**base[name], **section} if merged else section
        return base

    return values
