"""Server and client of nvflare_entry; the simulator imports them by name in its processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from nvflare.collab import collab

from benchmarks.speed.peers.local import Local, first_adapter

TIMEOUT = 3600.0  # seconds for one call, where the default is made for quicker clients


class Server:
    """Federated averaging; NVFlare gives the calls, the average of their results is the user's."""

    def __init__(self, folder: str, out: str) -> None:
        self.folder, self.out = folder, out

    @collab.main
    def run(self) -> None:
        folder, losses, seconds = Path(self.folder), [], []
        spec, values = json.loads((folder / "spec.json").read_text()), first_adapter(folder)
        for round in range(spec["rounds"]):
            started = time.perf_counter()
            results = collab.clients(timeout=TIMEOUT).train(values, round)
            if len(results) != spec["clients"]:
                raise RuntimeError(f"round {round + 1}: {dict(results.failures)}")
            values = {
                name: sum(trained[name] for _, (trained, _) in results) / len(results)
                for name in values
            }
            losses.append(float(np.mean([loss for _, (_, loss) in results])))
            seconds.append(time.perf_counter() - started)
        result = {"round_losses": losses, "round_seconds": seconds}
        Path(self.out).write_text(json.dumps(result))


class Client:
    """One site; its process lives through all rounds, so the model is built once."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @collab.init
    def prepare(self) -> None:
        self.local = Local(Path(self.folder))

    @collab.publish
    def train(self, values: dict, round: int) -> tuple[dict, float]:
        client = int(collab.site_name.rsplit("-", 1)[1]) - 1  # sites are site-1, site-2, ...
        received = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
        loss = self.local.train(received, round, client)
        names = self.local.names
        return {name: parameter.detach().numpy() for name, parameter in names.items()}, loss
