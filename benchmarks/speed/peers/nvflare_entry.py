"""NVIDIA FLARE: its simulator with a CollabRecipe, as many simulator threads as clients.

The Collab API is the one its guide names for new algorithms, and the server calls the clients
directly in it, where tasks of the older APIs are fetched by polling every two seconds. As many
threads as clients, SimEnv's default, give each client a process that lives through all rounds.
Each process has one torch thread, and adapters travel inside the messages (chunk size 0).

PEER_VENV/bin/python -m benchmarks.speed.peers.nvflare_entry WORKLOAD_FOLDER OUT.json [THREADS]

A process per client takes PROCESS_BYTES and seconds of start-up for each. Where the memory is too
short for that, or with THREADS below the number of clients, NVFlare's FedAvg runs on THREADS (by
default two, one per core) instead; the simulator then starts a process per client and round. With
many threads it may also draw a port twice and lose that client, which ends in exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import psutil
from nvflare.collab import CollabRecipe
from nvflare.job_config.api import FedJob
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.spec import Recipe

from benchmarks.speed.peers.nvflare_app import Client, Server
from benchmarks.speed.peers.nvflare_swapped import TimedFedAvg, Trainer
from benchmarks.speed.peers.processes import none_left

CORES = 2
PROCESS_BYTES = 320e6  # measured, with torch and transformers imported
SYNC_SECONDS = 120, 5  # all clients must answer once, after this long plus this for each of them


def resident(folder: Path, out: Path, spec: dict) -> Recipe:
    """A job whose clients are all alive at once and are called by the server."""
    return CollabRecipe(
        job_name="speed",
        server=Server(str(folder), str(out)),
        client=Client(str(folder)),
        sync_task_timeout=SYNC_SECONDS[0] + SYNC_SECONDS[1] * spec["clients"],
        min_clients=spec["clients"],
    )


def swapped(folder: Path, out: Path, spec: dict) -> Recipe:
    """A job whose clients come alive for a task."""
    job = FedJob(name="speed", min_clients=spec["clients"])
    job.to_server(TimedFedAvg(str(folder), str(out), spec["clients"], spec["rounds"]))
    job.to_clients(Trainer(str(folder)), tasks=["train"])
    return Recipe(job)


def main() -> None:
    folder, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    spec = json.loads((folder / "spec.json").read_text())
    clients = spec["clients"]
    fits = clients * PROCESS_BYTES < psutil.virtual_memory().available
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else clients if fits else CORES
    out.unlink(missing_ok=True)
    # the simulator's processes start elsewhere and must find this repository
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    recipe = (swapped if threads < clients else resident)(folder, out, spec)
    recipe.add_server_config({"np_download_chunk_size": 0})
    recipe.add_client_config({"np_download_chunk_size": 0})
    with tempfile.TemporaryDirectory() as workspace:
        environment = SimEnv(
            num_clients=clients, num_threads=min(threads, clients), workspace_root=workspace
        )
        recipe.execute(environment)
    if not out.exists():
        raise RuntimeError("the simulation ended before its last round")


if __name__ == "__main__":
    with none_left():
        main()
