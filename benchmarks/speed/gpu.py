"""Cohorts against one client at a time on a GPU; writes gpu.json into a folder.

python -m benchmarks.speed.gpu FOLDER [--size 0.5b|0.1b|tiny] [--device cuda] [--clients 16 32 64]

A Llama-shaped decoder with random weights in bfloat16, LoRA of rank 8, batch 4, 128 tokens. The
floors are measured on the same device: a large matrix product gives its arithmetic, a large copy
its memory bandwidth; a step cannot be faster than its products, nor than reading the weights twice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from airtune.build import Parts, build
from airtune.experiment import read_experiment
from airtune.learning.learner import Assignment
from airtune.learning.phase import Phase, supervised
from benchmarks.speed import workload

SHAPES = {  # layers, width, heads, feed-forward
    "0.5b": (24, 1024, 16, 4096),
    "0.1b": (12, 768, 12, 3072),
    "tiny": (2, 64, 4, 128),
}
STEPS, ROUNDS = 4, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="0.5b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 32, 64])
    options = parser.parse_args()
    layers, width, heads, feed_forward = SHAPES[options.size]
    options.folder.mkdir(parents=True, exist_ok=True)
    own = replace(
        workload.toy(max(options.clients)), name=options.size, layers=layers, width=width,
        heads=heads, feed_forward=feed_forward, rank=8, batch=4, length=128, steps=STEPS,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = workload.write(own, Path(scratch))
        overrides = [f"machine.device={options.device}", "model.dtype=bfloat16"]
        measured = []
        for cohort in sorted({1, *options.clients}):
            experiment = read_experiment(
                folder / "experiment.yaml", [*overrides, f"machine.cohort={cohort}"]
            )
            measured.append(_measure(build(experiment), max(options.clients), cohort))
            print(json.dumps(measured[-1]), flush=True)
    serial = next(row for row in measured if row["cohort"] == 1)
    for row in measured:
        row["faster_than_serial"] = row["tokens_per_s"] / serial["tokens_per_s"]
    result = {
        "device": _name(options.device), "size": options.size, "torch": torch.__version__,
        "measured": measured,
    }  # fmt: skip
    (options.folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")


def _measure(parts: Parts, clients: int, cohort: int) -> dict[str, Any]:
    """Train all clients for some rounds; return medians without the first round."""
    device, on_gpu = parts.model.device, parts.model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds, losses, tokens = [], [], 0
    for round in range(1, ROUNDS + 1):
        tasks = [
            Assignment(
                client, round, dict(parts.model.initial),
                [Phase(parts.clients.data[client], supervised, STEPS)],
            )
            for client in range(clients)
        ]  # fmt: skip
        started = time.perf_counter()
        for _ in parts.learner.train(tasks):
            pass  # adapters were read back to the CPU, so the device has finished
        seconds.append(time.perf_counter() - started)
        tokens = sum(task.tokens for task in tasks)
        losses = [task.loss for task in tasks]
    taken = median(seconds[1:])
    flops, bandwidth = _floors(device)
    weights = sum(p.numel() * p.element_size() for p in parts.backbone.module.parameters())
    passes = STEPS * -(-clients // cohort)
    arithmetic = 4 * parts.backbone.active_parameters * tokens / flops
    reading = 2 * weights * passes / bandwidth
    return {
        "cohort": cohort, "clients": clients, "seconds_per_round": taken,
        "tokens_per_s": tokens / taken, "floor_tokens_per_s": tokens / max(arithmetic, reading),
        "arithmetic_floor_s": arithmetic, "memory_floor_s": reading,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else None,
        "mean_loss": sum(losses) / len(losses),
    }  # fmt: skip


def _floors(device: torch.device) -> tuple[float, float]:
    """Return floating-point operations and bytes per second that this device reaches."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    product = _best(device, lambda: a @ a)
    copied = torch.empty_like(a)
    copy = _best(device, lambda: copied.copy_(a))
    return 2 * side**3 / product, 2 * a.numel() * a.element_size() / copy


def _best(device: torch.device, work: Any) -> float:
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


if __name__ == "__main__":
    main()
