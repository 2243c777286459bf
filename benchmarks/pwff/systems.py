"""What travels and what is computed in a round of each system: real messages, no training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from airtune.build import build, passes
from airtune.experiment import Experiment
from airtune.learning.standalone import Bottleneck
from airtune.radio.compute import Passes
from benchmarks.pwff import cases as of

FULL = "whole model"
PFIT, PFIT_LORA = "PFIT", "PFIT, LoRA in these blocks"
TASKS = ("PFTT", "adapter shared", "LoRA shared", "both shared")
LAST = 2  # blocks that PFIT tunes
# Tokens of a round: five steps of ten texts of 16; 144 answers of 50 tokens with their prompts,
# sampled, read by the reference and learned from once.
TEXTS, ANSWERS = 5 * 10 * 16, 144 * 50


@dataclass(frozen=True)
class System:
    """A system's message, the same both ways, and a client's arithmetic in a round.

    ``whole`` charges the way back through all layers, ``early`` only to the first adapted one;
    ``sampled`` tokens go forward alone, twice for an answer. ``parameters`` are those of the model.
    """

    model: str
    title: str
    bits: int
    whole: Passes
    early: Passes
    trained: int
    sampled: int
    parameters: int

    def flops(self, costs: Passes) -> float:
        """Return the floating-point operations of a round."""
        return float(costs.training(self.trained) + costs.inference(self.sampled))


def measured(shared: Path) -> Iterator[System]:
    """Yield the systems whose messages are built and encoded, and whole models beside them."""
    yield from _of_model("MiniLM", {row: _task(shared, row) for row in TASKS}, TEXTS, 0)
    tuned = {PFIT: _answers(shared, "blocks"), PFIT_LORA: _answers(shared, "lora")}
    yield from _of_model("stories260k", tuned, ANSWERS, 2 * ANSWERS)


def _of_model(
    model: str, experiments: dict[str, Experiment], trained: int, sampled: int
) -> Iterator[System]:
    for title, experiment in experiments.items():
        parts = build(experiment)
        costs = [
            passes(parts.model, parts.cell.config.model_copy(update={"backward": way}))
            for way in ("all", "adapted")
        ]
        count = parts.backbone.parameters
        yield System(model, title, parts.method.dense_bits, *costs, trained, sampled, count)
    yield _whole(model, count, parts.backbone.active_parameters, trained, sampled)


def _whole(model: str, parameters: int, active: int, trained: int, sampled: int) -> System:
    """Federated averaging of all parameters at 32 bit: arithmetic."""
    costs = Passes(active, active, active)
    return System(model, FULL, 32 * parameters, costs, costs, trained, sampled, parameters)


def gpt2() -> Iterator[System]:
    """Yield the systems on GPT-2 small: parameters counted on a model without memory, at 32 bit."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
        bottleneck = _count(Bottleneck(model.config.n_embd, of.WIDTH, bias=True))
    count, active = _count(model), _count(model) - _count(model.transformer.wpe)
    blocks = len(model.transformer.h)
    block = _count(model.transformer.h[0])
    adapter, lora = 2 * blocks * bottleneck, _lora(range(blocks))
    everywhere = Passes(active, active)
    for title, size in (
        ("PFTT", adapter), ("adapter shared", adapter), ("LoRA shared", lora),
        ("both shared", adapter + lora),
    ):  # fmt: skip
        yield System("GPT-2, texts", title, 32 * size, everywhere, everywhere, TEXTS, 0, count)
    yield _whole("GPT-2, texts", count, active, TEXTS, 0)
    reached = active - (blocks - LAST) * block
    for title, size, trained in (
        (PFIT, LAST * block, LAST * block), (PFIT_LORA, _lora(range(blocks - LAST, blocks)), 0),
    ):  # fmt: skip
        early = Passes(active, reached, trained)
        work = ANSWERS, 2 * ANSWERS
        yield System("GPT-2, answers", title, 32 * size, everywhere, early, *work, count)
    yield _whole("GPT-2, answers", count, active, ANSWERS, 2 * ANSWERS)


def _count(module: torch.nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())


def _lora(layers: range) -> int:
    """Count peft's LoRA of rank 8 on the fused maps to q, k and v of these layers.

    Of equal size as one on two separate maps, q and v.
    """
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
        wanted = peft.LoraConfig(
            r=8, target_modules=["c_attn"], layers_to_transform=list(layers), fan_in_fan_out=True
        )
        tuned = peft.get_peft_model(model, wanted)
    return sum(math.prod(p.shape) for p in tuned.parameters() if p.requires_grad)


def _task(shared: Path, row: str) -> Experiment:
    values = of.case(shared, row, "frozen", "0.5", 0).values
    data = {**values["data"], "train_limit": 2000, "test_limit": 100}
    return Experiment(**{**values, "data": data})


def _answers(shared: Path, kind: str) -> Experiment:
    adapter: dict[str, Any] = {"kind": kind, "top_layers": LAST}
    if kind == "lora":
        adapter |= {"rank": 8, "targets": ["q_proj", "v_proj"]}
    return Experiment(
        model={"name": str(shared / "models" / "stories260k"), "max_tokens": 64},
        adapter=adapter,
        data={
            "name": "stories", "train": str(shared / "data" / "tinystories" / "stories.jsonl.gz"),
            "train_limit": 200,
        },
        clients={"count": 10, "partition": "iid"},
        machine={"threads": 1},
        method={"name": "fedavg"},
    )  # fmt: skip
