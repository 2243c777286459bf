"""NVIDIA FLARE: its simulator (SimEnv) with a CollabRecipe, one thread per client.

PEER_VENV/bin/python -m benchmarks.speed.peers.nvflare_entry WORKLOAD_FOLDER OUT.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from nvflare.collab import CollabRecipe
from nvflare.recipe.sim_env import SimEnv

from benchmarks.speed.peers.nvflare_app import Client, Server

SYNC_TIMEOUT = 3600


def main() -> None:
    folder, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    spec = json.loads((folder / "spec.json").read_text())
    out.unlink(missing_ok=True)
    root = Path(__file__).parents[3]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    recipe = CollabRecipe(
        job_name="speed",
        server=Server(str(folder), str(out)),
        client=Client(str(folder)),
        sync_task_timeout=SYNC_TIMEOUT,
        min_clients=spec["clients"],
    )
    with tempfile.TemporaryDirectory() as workspace:
        recipe.execute(SimEnv(num_clients=spec["clients"], workspace_root=workspace))
    if not out.exists():
        raise RuntimeError("the simulation ended before its last round")


if __name__ == "__main__":
    main()
