"""pfl: FederatedAveraging on a SimulatedBackend, in PROCESSES worker processes (see pfl_worker).

Its guide on fast simulations shards the users of a cohort over worker processes, which find each
other by PFL_WORKER_ADDRESSES and PFL_WORKER_RANK; so as many processes as cores are started here,
at the same time, with one torch thread each. On two cores that made rounds a third shorter than
one process with two threads, which PROCESSES = 1 gives, at a second or two more of start-up.

PEER_VENV/bin/python -m benchmarks.speed.peers.pfl_entry WORKLOAD_FOLDER OUT.json [PROCESSES]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from benchmarks.speed.peers.processes import none_left

PROCESSES = 2


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses; all are held until all are known, so that none comes twice."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [own.getsockname()[1] for own in sockets]
    for own in sockets:
        own.close()
    return ports


def environment(rank: int, ports: list[int]) -> dict[str, str]:
    if len(ports) == 1:
        return dict(os.environ)
    addresses = ",".join(f"localhost:{port}" for port in ports)
    return {**os.environ, "PFL_WORKER_ADDRESSES": addresses, "PFL_WORKER_RANK": str(rank)}


def main() -> None:
    processes = int(sys.argv[3]) if len(sys.argv) > 3 else PROCESSES
    threads, ports = max(1, 2 // processes), free_ports(processes)
    command = [sys.executable, "-m", "benchmarks.speed.peers.pfl_worker", *sys.argv[1:3]]
    workers = [
        subprocess.Popen([*command, str(threads)], env=environment(rank, ports))
        for rank in range(processes)
    ]
    while any(worker.poll() is None for worker in workers):
        if any(worker.poll() for worker in workers):
            break  # the others would wait for the one that failed
        time.sleep(0.01)
    if any(worker.returncode for worker in workers):
        raise RuntimeError("a worker process failed")


if __name__ == "__main__":
    with none_left():
        main()
