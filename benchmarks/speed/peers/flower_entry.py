"""Flower: FedAvg in its simulation on Ray, one actor per core, each with one torch thread.

The guide on simulations makes parallelism a matter of client_resources, so a client gets one of
the two cores and two actors run side by side; Ray and its actors start once for all rounds, and
an actor keeps the model between clients (see flower_client). Only the adapter is sent. There is
no evaluation, telemetry is off, and the Python call starts fewer processes than the flwr command.

PEER_VENV/bin/python -m benchmarks.speed.peers.flower_entry WORKLOAD_FOLDER OUT.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

# both are read on import
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.speed.peers.flower_client import app as client_app
from benchmarks.speed.peers.local import first_adapter
from benchmarks.speed.peers.processes import none_left

CORES = 2


class TimedFedAvg(FedAvg):
    """Flower's own strategy, noting the time of each round and refusing to go on with failures."""

    def __init__(self, clients: int) -> None:
        super().__init__(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        self.clients, self.losses, self.seconds = clients, [], []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.started = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        if sum(not reply.has_error() for reply in replies) != self.clients:
            raise RuntimeError(f"round {server_round}: not all clients replied")
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.seconds.append(time.perf_counter() - self.started)
        self.losses.append(float(metrics["loss"]))
        return arrays, metrics


def main() -> None:
    folder, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    spec = json.loads((folder / "spec.json").read_text())
    first = {name: torch.from_numpy(value) for name, value in first_adapter(folder).items()}
    strategy, server_app = TimedFedAvg(spec["clients"]), ServerApp()

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(first),
            num_rounds=spec["rounds"],
            train_config=ConfigRecord({"folder": str(folder)}),
        )

    run_simulation(
        server_app,
        client_app,
        num_supernodes=spec["clients"],
        backend_config={
            "init_args": {"num_cpus": CORES},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if len(strategy.losses) != spec["rounds"]:
        raise RuntimeError("the simulation ended before its last round")
    result = {"round_losses": strategy.losses, "round_seconds": strategy.seconds}
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    with none_left():
        main()
