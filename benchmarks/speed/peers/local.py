"""What a client does with the adapter it gets, for the peers that leave this to the user.

Only torch, numpy and benchmarks.speed.loop, so that it runs in every peer's environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.speed.loop import build


def first_adapter(folder: Path) -> dict[str, np.ndarray]:
    """The tensors that round 1 starts from, by peft's names."""
    with np.load(folder / "workload.npz") as arrays:
        prefix = "adapter/"
        names = [name for name in arrays.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): arrays[name] for name in names}


class Local:
    """A workload with its model, to be made once per process; one torch thread."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.spec = json.loads((folder / "spec.json").read_text())
        self.arrays = dict(np.load(folder / "workload.npz"))
        self.model, self.names = build(self.spec, self.arrays, "own")

    def train(self, values: Mapping[str, torch.Tensor], round: int, client: int) -> float:
        """Train from the given adapter, leave the result in the model; return the mean loss."""
        parameters, losses = list(self.names.values()), []
        with torch.no_grad():
            for name, parameter in self.names.items():
                parameter.copy_(values[name])
        rate = self.spec["learning_rate"]
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
        for rows in self.arrays["batches"][round, client]:
            loss = self.loss(client, rows)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def loss(self, client: int, rows: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(self.arrays["tokens"][client, rows])
        mask = torch.ones_like(ids)
        if self.spec["task"] == "causal":
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logits, labels = logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
        else:
            logits = self.model(ids, mask)
            labels = torch.from_numpy(self.arrays["labels"][client, rows])
        return functional.cross_entropy(logits, labels)
