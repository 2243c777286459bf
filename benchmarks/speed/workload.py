"""Workloads that every entry of the speed benchmark reads: model, texts, batches, first adapter.

A workload is a folder. ``experiment.yaml``, ``model/`` and ``train.csv`` are what airtune's users
write; ``workload.npz`` and ``spec.json`` hold the same for entries that know nothing of airtune:

    tokens   [clients, rows, length] int64, no padding needed: all texts have one length
    labels   [clients, rows] int64 (classification only)
    batches  [rounds, clients, steps, batch] int64, positions among a client's rows
    A LoRA tensor NAME of the first adapter is stored under "adapter/NAME", named as peft does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

WORDS = 250  # the vocabulary, beside [PAD], [CLS], [SEP] and [UNK]


@dataclass(frozen=True)
class Workload:
    """One workload; every client has ``rows`` texts of ``length`` tokens and trains each round."""

    name: str
    task: str  # causal (2-layer Llama shape) or classification (BERT shape with mean pooling)
    clients: int
    rows: int
    length: int
    batch: int
    steps: int
    rounds: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    rank: int
    top_layers: int | None = None
    cohort: int | None = 1
    model: str | None = None  # a pretrained sentence encoder instead of random weights
    learning_rate: float = 3e-3
    classes: int = 10


def toy(clients: int, cohort: int | None = 1, rounds: int = 3) -> Workload:
    """Return the toy of S1: a causal decoder of two layers and width 64, adapters of rank 4."""
    return Workload(
        f"toy-{clients}", "causal", clients, rows=16, length=32, batch=8, steps=4, rounds=rounds,
        layers=2, width=64, heads=4, feed_forward=128, rank=4, cohort=cohort,
    )  # fmt: skip


def encoder(clients: int, batch: int, length: int, **options: object) -> Workload:
    """Return a workload on an encoder of six layers and width 384 (MiniLM's shape)."""
    values = {"rows": 4 * batch, "steps": 4, "rounds": 1, **options}
    return Workload(
        f"encoder-{clients}x{batch}x{length}", "classification", clients, length=length,
        batch=batch, layers=6, width=384, heads=12, feed_forward=1536, rank=8, **values,
    )  # type: ignore[arg-type]  # fmt: skip


def write(workload: Workload, folder: Path) -> Path:
    """Write a workload and return its folder; batches and first adapter are airtune's own."""
    from airtune import keyed
    from airtune.build import build
    from airtune.experiment import read_experiment

    folder.mkdir(parents=True, exist_ok=True)
    model = workload.model or str(_model(workload, folder / "model"))
    _texts(workload, model, folder / "train.csv")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(_experiment(workload, model, folder)))
    parts = build(read_experiment(folder / "experiment.yaml"))
    data = [parts.clients.data[client] for client in range(workload.clients)]
    every = np.arange(workload.rows)
    arrays = {
        "tokens": np.stack([own.batch(every)["input_ids"].numpy() for own in data]),
        "batches": np.stack(
            [
                [_batches(keyed, workload, round, client) for client in range(workload.clients)]
                for round in range(1, workload.rounds + 1)
            ]
        ),
    }
    assert arrays["tokens"].shape == (workload.clients, workload.rows, workload.length)
    if workload.task == "classification":
        arrays["labels"] = np.stack([own.batch(every)["labels"].numpy() for own in data])
    arrays |= {f"adapter/{name}": value.numpy() for name, value in parts.model.initial.items()}
    np.savez(folder / "workload.npz", **arrays)  # type: ignore[arg-type]
    (folder / "spec.json").write_text(json.dumps({**asdict(workload), "model": model}, indent=2))
    return folder


def _batches(keyed: object, workload: Workload, round: int, client: int) -> np.ndarray:
    rng = keyed.generator(0, "batches", round, client, 0)  # type: ignore[attr-defined]
    needed, order = workload.steps * workload.batch, np.empty(0, dtype=np.int64)
    while len(order) < needed:
        order = np.concatenate([order, rng.permutation(workload.rows)])
    return order[:needed].reshape(workload.steps, workload.batch)


def _experiment(workload: Workload, model: str, folder: Path) -> dict[str, object]:
    data = {"name": workload.name, "train": str(folder / "train.csv"), "train_limit": None}
    data |= {"test": str(folder / "test.csv")}
    if workload.task == "classification":
        data |= {"label": "label"}
    targets = ["q_proj", "v_proj"] if workload.task == "causal" else ["query", "value"]
    return {
        "name": workload.name,
        "model": {"name": model, "max_tokens": max(workload.length, 8)},
        "adapter": {
            "rank": workload.rank,
            "alpha": 2.0 * workload.rank,
            "targets": targets,
            **({} if workload.top_layers is None else {"top_layers": workload.top_layers}),
        },
        "data": data,
        "clients": {"count": workload.clients, "partition": "iid", "test_fraction": 0.0},
        "cell": {"preset": "ideal"},
        "train": {
            "rounds": workload.rounds,
            "local_steps": workload.steps,
            "batch_size": workload.batch,
            "learning_rate": workload.learning_rate,
            "head_learning_rate": workload.learning_rate,
            "evaluate_every": workload.rounds,
        },
        "machine": {"cohort": workload.cohort, "device": "cpu"},
    }


def _texts(workload: Workload, model: str, path: Path) -> None:
    """Write texts that tokenise to exactly ``length`` tokens, start and end included."""
    from transformers import AutoTokenizer

    rng = np.random.default_rng(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = [f"w{i}" for i in range(WORDS)]
    if workload.model is not None:  # whole words of a pretrained vocabulary
        vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
        words = [word for word in vocabulary if word.isascii() and word.isalpha()][:WORDS]
    count = workload.clients * workload.rows
    drawn = rng.integers(len(words), size=(count + 1, workload.length - 2))
    label = workload.task == "classification"
    for file, rows in ((path, drawn[:count]), (path.with_name("test.csv"), drawn[count:])):
        lines = ["text,label" if label else "text"]
        for index, row in enumerate(rows):
            text = " ".join(words[i] for i in row)
            lines.append(f"{text},c{index % workload.classes}" if label else text)
        file.write_text("\n".join(lines) + "\n")


def _model(workload: Workload, folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: i for i, word in enumerate(special + [f"w{i}" for i in range(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]",
        unk_token="[UNK]",
    ).save_pretrained(folder)  # fmt: skip
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": workload.width,
        "num_hidden_layers": workload.layers,
        "num_attention_heads": workload.heads,
        "intermediate_size": workload.feed_forward,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(0)
    if workload.task == "causal":
        LlamaForCausalLM(LlamaConfig(num_key_value_heads=workload.heads, **sizes)).save_pretrained(
            folder
        )
        return folder
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    pooling = {
        "modules.json": [{"type": "Transformer"}, {"type": "Pooling"}, {"type": "Normalize"}]
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling["1_Pooling/config.json"] = {"pooling_mode_mean_tokens": True}  # type: ignore[assignment]
    for name, content in pooling.items():
        (folder / name).write_text(json.dumps(content))
    return folder
