"""Sentences as words: a model folder in which every text of a data set is one token.

The token's embedding is the sentence's embedding by the real encoder, frozen. One attention layer
that does nothing until its value matrix is adapted, ``z -> norm(z + B A z)``, and airtune's linear
head stand for the fine-tuned encoder. A run costs seconds instead of minutes and goes through the
same methods, radio and bytes; hidden states below the adapter carry no label knowledge.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

_ROWS, _TOKENS = 64, 48


def build(encoder: Path, data: Path, folder: Path) -> None:
    """Write ``folder``/model, train.csv and test.csv, if they are not there."""
    if (folder / "test.csv").exists():
        return
    (folder / "model").mkdir(parents=True, exist_ok=True)
    frames = {part: pd.read_csv(data / f"{part}.csv") for part in ("train", "test")}
    texts = [text for frame in frames.values() for text in frame["text"]]
    _write_model(_embed(encoder, texts), folder / "model")
    first = 0
    for part, frame in frames.items():
        words = [f"t{first + row}" for row in range(len(frame))]
        rows = pd.DataFrame({"text": words, "category": frame["category"]})
        rows.to_csv(folder / f"{part}.csv", index=False)
        first += len(frame)


def _embed(encoder: Path, texts: list[str]) -> torch.Tensor:
    """Return mean-pooled unit vectors, [texts, width]."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).eval()
    vectors = torch.zeros(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt",
            )  # fmt: skip
            weight = batch["attention_mask"].unsqueeze(-1)
            hidden = (model(**batch).last_hidden_state * weight).sum(1) / weight.sum(1)
            vectors[rows] = torch.nn.functional.normalize(hidden, dim=-1)
    return vectors


def _write_model(vectors: torch.Tensor, folder: Path) -> None:
    words = ["[PAD]", "[UNK]", *(f"t{i}" for i in range(len(vectors)))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=8
    ).save_pretrained(folder)
    width = vectors.shape[1]
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=1, max_position_embeddings=8,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        model.embeddings.word_embeddings.weight[2:] = vectors
        model.encoder.layer[0].attention.output.dense.weight.copy_(torch.eye(width))
    model.save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, ["", "1_Pooling", "2_Normalize"], strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
