"""Create one virtual environment per peer, so that no peer's pins reach another or airtune.

python -m benchmarks.speed.peers.environments FOLDER

makes FOLDER/pfl, FOLDER/flower and FOLDER/nvflare with the versions below. torch comes first and
by exact version: any range would let pip replace a local CPU build by one with CUDA packages.
An environment that already imports its peer at the right version is left as it is. One that
cannot be installed is reported, the others are still made, and the exit code is 1.

All three peers take transformers 5.23.0 and numpy 2. flwr 1.42.0 asks for certifi>=2026.10.19; an
index that does not have it yet gives the newest certifi it has. That package only holds root
certificates, and a simulation on one machine opens no connection that would check one.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
COMMON = ("transformers==5.23.0", "numpy", "psutil")


@dataclass(frozen=True)
class Peer:
    """What to install, and how to see that it is there."""

    distribution: str
    version: str
    extra: str
    imports: tuple[str, ...]
    relaxed: tuple[str, ...] = ()  # dependencies whose lower bound may be given up

    @property
    def requirement(self) -> str:
        return f"{self.distribution}{self.extra}=={self.version}"


PEERS = {
    "pfl": Peer("pfl", "0.6.0", "[pytorch]", ("pfl.aggregate.simulate", "pfl.model.pytorch")),
    "flower": Peer("flwr", "1.42.0", "[simulation]", ("flwr.simulation", "ray"), ("certifi",)),
    "nvflare": Peer("nvflare", "2.9.0", "", ("nvflare.job_config.api", "nvflare.app_common")),
}


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def works(environment: Path, peer: Peer) -> bool:
    """Whether the environment imports torch, transformers and the peer at its version."""
    if not python_of(environment).exists():
        return False
    lines = [
        "from importlib.metadata import version",
        f"assert version({peer.distribution!r}) == {peer.version!r}",
        f"assert version('torch').split('+')[0] == {TORCH.split('==')[1]!r}",
        f"import torch, transformers, {', '.join(peer.imports)}",
    ]
    command = [str(python_of(environment)), "-c", "; ".join(lines)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def requirements(environment: Path, peer: Peer) -> list[str]:
    """What the installed peer asks for with its extra, less what is relaxed."""
    code = f"""
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for text in requires({peer.distribution!r}):
    found = Requirement(text)
    if found.marker and not found.marker.evaluate({{"extra": {peer.extra.strip("[]")!r}}}):
        continue
    if found.name not in {peer.relaxed!r}:
        found.marker = None
        print(found)
"""
    command = [str(python_of(environment)), "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return done.stdout.splitlines()


def install(environment: Path, peer: Peer) -> None:
    """Create the environment, then install torch before anything that depends on it."""
    venv.create(environment, with_pip=True)
    pip = [str(python_of(environment)), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, TORCH], check=True)
    wanted = [*pip, TORCH, *COMMON]
    try:
        subprocess.run([*wanted, peer.requirement], check=True)
    except subprocess.CalledProcessError:
        if not peer.relaxed:
            raise
        print(f"{peer.requirement} as published failed, now with any {', '.join(peer.relaxed)}")
        subprocess.run([*pip, "--no-deps", peer.requirement], check=True)
        subprocess.run([*wanted, *peer.relaxed, *requirements(environment, peer)], check=True)
    if not works(environment, peer):
        raise RuntimeError(f"installed, but {', '.join(peer.imports)} cannot be imported")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    failed = []
    for name, peer in PEERS.items():
        environment = Path(sys.argv[1]) / name
        if works(environment, peer):
            print(f"{name}: there already")
            continue
        try:
            install(environment, peer)
            print(f"{name}: installed {peer.requirement}")
        except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
            failed.append(name)
            print(f"{name}: NOT installed: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
