"""The bare loop: federated averaging of LoRA as one writes it by hand, with torch and peft only.

python -m benchmarks.speed.loop WORKLOAD_FOLDER OUT.json [own|peft]

``own`` replaces peft's LoRA layers by the ten lines that LoRA needs, which is faster on toys.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Lora(nn.Module):
    """y = W x + (alpha / r) B A x."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.A = nn.Parameter(torch.zeros(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + functional.linear(functional.linear(x, self.A), self.B) * self.scale


class Pooled(nn.Module):
    """Mean of the encoder's outputs, unit norm times the square root of the width, linear head."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).float()
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        return self.classifier(functional.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5)


def build(spec: dict, arrays: dict, kind: str) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """Return the model and its trained parameters by peft's names, at their first values."""
    from transformers import AutoModel, AutoModelForCausalLM

    targets = ["q_proj", "v_proj"] if spec["task"] == "causal" else ["query", "value"]
    if spec["task"] == "causal":
        model = AutoModelForCausalLM.from_pretrained(spec["model"])
    else:
        model = Pooled(AutoModel.from_pretrained(spec["model"]), spec["classes"])
    model.requires_grad_(False)
    first = spec["layers"] - (spec["top_layers"] or spec["layers"])
    rank, alpha = spec["rank"], 2.0 * spec["rank"]
    names = {}
    if kind == "peft":
        import peft

        layers = None if first == 0 else list(range(first, spec["layers"]))
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=targets, layers_to_transform=layers
        )
        model = peft.get_peft_model(model, config).base_model.model
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                names[name.replace(".default", "")] = parameter
    else:
        for path, module in list(model.named_modules()):
            parts = path.split(".")
            adapted = parts[-1] in targets and int(next(p for p in parts if p.isdigit())) >= first
            if adapted:
                lora = Lora(module, rank, alpha)
                setattr(model.get_submodule(".".join(parts[:-1])), parts[-1], lora)
                names[f"{path}.lora_A.weight"], names[f"{path}.lora_B.weight"] = lora.A, lora.B
    if spec["task"] == "classification":
        model.classifier.requires_grad_(True)
        names["classifier.weight"] = model.classifier.weight
        names["classifier.bias"] = model.classifier.bias
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(torch.from_numpy(arrays[f"adapter/{name}"]))
    return model.eval(), names


def train_round(
    spec: dict, arrays: dict, model: nn.Module, names: dict[str, nn.Parameter], round: int
) -> float:
    """Train every client in turn and leave the average in the model; return the mean loss."""
    parameters = list(names.values())
    start = [parameter.detach().clone() for parameter in parameters]
    total = [torch.zeros_like(value) for value in start]
    losses = []
    for client in range(spec["clients"]):
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
        optimiser = torch.optim.AdamW(parameters, lr=spec["learning_rate"], weight_decay=0.0)
        for positions in arrays["batches"][round, client]:
            ids = torch.from_numpy(arrays["tokens"][client, positions])
            mask = torch.ones_like(ids)
            if spec["task"] == "causal":
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                loss = functional.cross_entropy(
                    logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
                )
            else:
                labels = torch.from_numpy(arrays["labels"][client, positions])
                loss = functional.cross_entropy(model(ids, mask), labels)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            losses.append(loss.item())
        with torch.no_grad():
            for sum_, parameter in zip(total, parameters, strict=True):
                sum_.add_(parameter, alpha=1.0 / spec["clients"])
    with torch.no_grad():
        for parameter, value in zip(parameters, total, strict=True):
            parameter.copy_(value)
    return float(np.mean(losses))


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    kind = sys.argv[3] if len(sys.argv) > 3 else "own"
    torch.set_num_threads(2)
    spec = json.loads((folder / "spec.json").read_text())
    arrays = dict(np.load(folder / "workload.npz"))
    model, names = build(spec, arrays, kind)
    losses, seconds = [], []
    for round in range(spec["rounds"]):
        started = time.perf_counter()
        losses.append(train_round(spec, arrays, model, names, round))
        seconds.append(time.perf_counter() - started)
    out.write_text(json.dumps({"round_losses": losses, "round_seconds": seconds}))


if __name__ == "__main__":
    main()
