"""One worker process of pfl_entry: python -m ... WORKLOAD_FOLDER OUT.json THREADS.

It holds one model for all its users; only the adapter is a variable of pfl's PyTorchModel; users
are in-memory tensor datasets; users are taken in turn, so that a round has each of them once; and
the metrics that pfl takes before and after local training in round 0 are empty, so cost nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import StringMetricName, Weighted
from pfl.model.pytorch import PyTorchModel
from torch.nn import functional

from benchmarks.speed.loop import build

LOSS = StringMetricName("local loss")


class Task(torch.nn.Module):
    """The model with the two methods that pfl asks for; keeps the losses of the current user."""

    def __init__(self, model: torch.nn.Module, causal: bool) -> None:
        super().__init__()
        self.model, self.causal = model, causal
        self.losses: list[float] = []

    def loss(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(ids)
        if self.causal:
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logits, labels = logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
        else:
            logits = self.model(ids, mask)
        value = functional.cross_entropy(logits, labels)
        self.losses.append(value.item())
        return value

    def metrics(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        return {}


class Averaging(FederatedAveraging):
    """pfl's own algorithm, with the training loss as a metric of each user."""

    def train_one_user(self, initial: Any, model: Any, data: Any, context: Any) -> tuple[Any, Any]:
        losses = model.pytorch_model.losses
        losses.clear()
        statistics, metrics = super().train_one_user(initial, model, data, context)
        metrics[LOSS] = Weighted(sum(losses), len(losses))
        return statistics, metrics


class Rounds(TrainingProcessCallback):
    """Notes the mean loss and the time of every round."""

    def on_train_begin(self, *, model: Any) -> Any:
        self.losses: list[float] = []
        self.times = [time.perf_counter()]
        return super().on_train_begin(model=model)

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Any]:
        self.losses.append(float(aggregate_metrics[LOSS].overall_value))
        self.times.append(time.perf_counter())
        return super().after_central_iteration(
            aggregate_metrics, model, central_iteration=central_iteration
        )


def users(spec: dict, arrays: dict) -> FederatedDataset:
    tokens = torch.from_numpy(arrays["tokens"])
    # a causal task has no labels, yet pfl gives every loss the same arguments
    labels = torch.from_numpy(arrays.get("labels", arrays["tokens"][..., 0]))
    batches = torch.from_numpy(arrays["batches"]).flatten(start_dim=2)
    visits: Counter[int] = Counter()

    def dataset(user: int) -> PyTorchTensorDataset:
        rows = batches[visits[user], user]  # pfl cuts them into this round's batches
        visits[user] += 1
        return PyTorchTensorDataset((tokens[user, rows], labels[user, rows]), user_id=user)

    return FederatedDataset(dataset, MinimizeReuseUserSampler(list(range(spec["clients"]))))


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]))
    spec = json.loads((folder / "spec.json").read_text())
    arrays = dict(np.load(folder / "workload.npz"))
    model, names = build(spec, arrays, "own")
    parameters, data, rounds = list(names.values()), users(spec, arrays), Rounds()
    adapter = PyTorchModel(
        Task(model, spec["task"] == "causal"),
        # pfl offers all parameters; the frozen ones would only be passed over in every step
        lambda _, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0),
        torch.optim.SGD(parameters, lr=1.0),  # the server takes the mean update as it is
    )
    Averaging().run(
        NNAlgorithmParams(spec["rounds"], spec["rounds"], spec["clients"], None),
        SimulatedBackend(data, data),
        adapter,
        NNTrainHyperParams(
            local_batch_size=spec["batch"],
            local_num_epochs=1,
            local_learning_rate=spec["learning_rate"],
            local_max_grad_norm=1.0,
        ),
        NNEvalHyperParams(local_batch_size=None),
        callbacks=[rounds],
        send_metrics_to_platform=False,
    )
    if os.environ.get("PFL_WORKER_RANK", "0") == "0":
        seconds = np.diff(rounds.times).tolist()
        out.write_text(json.dumps({"round_losses": rounds.losses, "round_seconds": seconds}))


if __name__ == "__main__":
    main()
