"""A server and its devices on one machine, each in a network namespace, joined by shaped links.

Needs root and Debian's iproute2: each device has a pair of virtual Ethernet devices to the server,
shaped at either end by a token bucket (``tc tbf``). What crosses is counted by the interfaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_BURST = "16kb"  # bytes that pass at once: some frames, so that short messages are shaped too
_QUEUE = "400ms"  # of the bucket; what waits longer is dropped, and TCP slows down


@dataclass(frozen=True)
class Count:
    """Bytes that left and reached a device, frames and all."""

    up: int
    down: int


def missing() -> str | None:
    """Return why there can be no test bed here, None if there can."""
    if os.geteuid() != 0:
        return "network namespaces and traffic shaping need root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"'{program}' is missing: install iproute2"
    try:
        _ip("netns", "add", "airtune-trial")
        _ip("netns", "delete", "airtune-trial")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return None


class Bed:
    """Namespaces for a server and ``rates`` [devices] in Mbit/s up; ``down`` for all of them."""

    def __init__(self, rates: Sequence[float], down: float) -> None:
        self.rates, self._down = list(rates), down
        self._tag = f"{os.getpid():x}"
        self._server = f"at{self._tag}s"
        self._spaces = [self._server]
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Bed:
        _ip("netns", "add", self._server)
        _ip("-n", self._server, "link", "set", "lo", "up")
        for device in range(len(self.rates)):
            space, near, far = self.space(device), f"v{self._tag}d{device}", self._far(device)
            _ip("netns", "add", space)
            self._spaces.append(space)
            _ip("link", "add", near, "netns", space, "type", "veth", "peer", "name", far,
                "netns", self._server)  # fmt: skip
            for where, link, last in ((space, near, 2), (self._server, far, 1)):
                _ip("-n", where, "addr", "add", f"10.77.{device}.{last}/24", "dev", link)
                _ip("-n", where, "link", "set", link, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            self.shape(device, self.rates[device])
            _shape(self._server, far, self._down)
        return self

    def __exit__(self, *problem: object) -> None:
        for program in reversed(self._programs):
            if program.poll() is None:
                program.terminate()
        for program in self._programs:
            try:
                program.wait(timeout=20)
            except subprocess.TimeoutExpired:
                program.kill()
        for space in self._spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False)

    def space(self, device: int) -> str:
        """Return the name of a device's namespace."""
        return f"at{self._tag}d{device}"

    def address(self, device: int) -> str:
        """Return the server's address as a device sees it."""
        return f"10.77.{device}.1"

    def shape(self, device: int, mbit: float) -> None:
        """Let a device send so many Mbit/s from now on."""
        self.rates[device] = mbit
        _shape(self.space(device), f"v{self._tag}d{device}", mbit)

    def count(self, device: int) -> Count:
        """Return what crossed a device's link since it is there."""
        base = f"/sys/class/net/v{self._tag}d{device}/statistics"
        said = self._in(self.space(device), ["cat", f"{base}/tx_bytes", f"{base}/rx_bytes"])
        return Count(*map(int, said.stdout.split()))

    def serve(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program where the server is."""
        return self._start(self._server, command, log)

    def join(self, device: int, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program where a device is."""
        return self._start(self.space(device), command, log)

    def _far(self, device: int) -> str:
        return f"v{self._tag}s{device}"

    def _start(self, space: str, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            program = subprocess.Popen(
                ["ip", "netns", "exec", space, *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._programs.append(program)
        return program

    def _in(self, space: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", space, *command], check=True, capture_output=True, text=True
        )


def wait_for(path: Path, seconds: float) -> None:
    """Wait for a file; raise TimeoutError if it does not come."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"'{path.name}' did not come within {seconds:g} s")
        time.sleep(0.1)


def _shape(space: str, link: str, mbit: float) -> None:
    rate = f"{round(1000 * mbit)}kbit"
    subprocess.run(
        ["tc", "-n", space, "qdisc", "replace", "dev", link, "root", "tbf", "rate", rate,
         "burst", _BURST, "latency", _QUEUE],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
