"""Server and client of nvflare_entry with fewer processes than clients: NVFlare's own FedAvg.

The Collab API needs all clients alive at once. Here a client is an Executor of one task, which
the simulator starts in a new process for every round, on as many threads as asked for.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.executor import Executor
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg

from benchmarks.speed.peers.local import Local, first_adapter


class TimedFedAvg(FedAvg):
    """NVFlare's own workflow, noting the loss and the time of each round."""

    def __init__(self, folder: str, out: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        self.folder, self.out = folder, out

    def run(self) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.model = FLModel(params=first_adapter(Path(self.folder)))
        super().run()
        if len(self.losses) == self.num_rounds:
            result = {"round_losses": self.losses, "round_seconds": self.seconds}
            Path(self.out).write_text(json.dumps(result))

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        self.started = time.perf_counter()
        return super().sample_clients(num_clients)

    def save_model(self, model: FLModel) -> None:
        """End a round; nothing goes to disk, as no other entry saves the average either."""
        if self._received_count != self.num_clients:
            raise RuntimeError(f"{self._received_count} of {self.num_clients} clients replied")
        self.losses.append(float(model.metrics["loss"]))
        self.seconds.append(time.perf_counter() - self.started)


class Trainer(Executor):
    """Trains one site on the adapter that comes with the task."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        model = FLModelUtils.from_shareable(shareable)
        local = Local(Path(self.folder))
        client = int(fl_ctx.get_identity_name().rsplit("-", 1)[1]) - 1
        values = {name: torch.from_numpy(value) for name, value in model.params.items()}
        loss = local.train(values, model.current_round, client)
        trained = {name: parameter.detach().numpy() for name, parameter in local.names.items()}
        return FLModelUtils.to_shareable(FLModel(params=trained, metrics={"loss": loss}))
