"""Flower's programs as processes of ours: a SuperLink with the run's app, a SuperNode.

Each has a home of its own, an explicit port, and neither telemetry nor anything to download.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airtune.deploy import watched
from airtune.deploy.flower.apps import Side, write_app, write_programs
from airtune.errors import UserError

_OWN = "127.0.0.1"
RUN_SOCKET = "run.sock"  # beside a SuperLink: where its run's app finds the serving process
_LINK_S = 60.0
_TELL_S = 60.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = re.compile(r"\[code: |CERTIFICATE|Error:|refused")
_LOST = re.compile(rb"Giving up reconnection|TLS handshake error|\[code: 2\d\d\d\]")
_LONGEST = 64  # bytes that may be the beginning of such words
_RETRY_S = 20  # after which a SuperNode gives up, to be started again
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "HF_HUB_OFFLINE": "1",
    # Bytes of the pieces that letters travel in. Flower waits 30 s for each to be taken: with its
    # own 5 MiB nobody below 1.4 Mbit/s would ever finish one, with these whoever has 70 kbit/s.
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(1 << 18),
}


@dataclass(frozen=True)
class Tls:
    """Files of the server's side: its certificate and key, and who signed the certificate."""

    ca: Path
    certificate: Path
    key: Path


class Program:
    """One of Flower's programs, its output in a file."""

    def __init__(
        self, name: str, arguments: Sequence[str], home: Path, side: Side | None = None
    ) -> None:
        """Start it with ``home`` as all that it may write to.

        With a ``side`` it runs our app there and no other; without, what any run brings along.
        """
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        run = home / RUN_SOCKET if side == "server" else None
        own = None if side is None else write_programs(home / "programs", side, run)
        self.name, self.log = name, home / f"{name}.log"
        with self.log.open("ab") as log:
            self._begin = log.tell()
            command = [_program(name), *arguments]
            self._process = watched.start(command, environment(home, own), log)

    def code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def is_lost(self) -> bool:
        """Return whether a SuperNode has given up on its server: it need not end then by itself."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            new = log.read()
        self._begin += max(len(new) - _LONGEST, 0)  # the log grows for as long as the run
        return _LOST.search(new) is not None

    def why(self) -> str:
        """Return the last line of its output that tells of an error, or the last at all."""
        plain = _COLOURS.sub("", self.log.read_text(encoding="utf-8", errors="replace"))
        lines = [line.strip() for line in plain.splitlines() if line.strip()]
        told = [line for line in lines if _TELLING.search(line)] or lines
        return f"{told[-1][:300]} (more in {self.log})" if told else f"see {self.log}"

    def end(self) -> None:
        """End it and what it started."""
        watched.end(self._process)


class SuperLink:
    """Flower's server, and the commands that speak to it."""

    def __init__(self, port: int, home: Path, tls: Tls | None, side: Side | None = "server"):
        """Start it on this machine's loopback interface and wait until it answers.

        It runs our app and no other, unless ``side`` is None. Without ``tls`` everything is in the
        clear. Raises UserError if it does not start.
        """
        check_port(_OWN, port)
        self._home, self.port, self.socket = home, port, home / RUN_SOCKET
        arguments = [
            "--host",
            _OWN,
            "--port",
            str(port),
            "--disable-runtime-dependency-installation",
        ]
        if tls is None:
            arguments.append("--insecure")
        else:
            arguments += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate)]
            arguments += ["--ssl-keyfile", str(tls.key), "--enable-supernode-auth"]
        self.program = Program("flower-superlink", arguments, home, side)
        connection = f'[superlink.airtune]\naddress = "{_OWN}:{port}"\n'
        connection += "insecure = true\n" if tls is None else f'root-certificates = "{tls.ca}"\n'
        (home / "config.toml").write_text(connection, encoding="utf-8")
        end = time.monotonic() + _LINK_S
        try:
            while not _answers(_OWN, port):
                if self.program.code() is not None or time.monotonic() > end:
                    raise UserError(f"Flower's SuperLink did not start: {self.program.why()}")
                time.sleep(0.1)
        except BaseException:
            self.program.end()
            raise

    def run(self) -> None:
        """Submit the app whose ServerApp connects to ``socket``; raise UserError if refused."""
        self.submit(write_app(self._home / "app"), self.socket)

    def submit(self, app: Path, socket: Path) -> None:
        """Submit an app whose setting ``socket`` is this path; raise UserError if refused."""
        told = ["--run-config", f'socket="{socket}"', "--format", "json"]
        self._tell("run", str(app), "airtune", *told)

    def register(self, public_key: Path) -> str:
        """Let the device with this key take part; return its node id."""
        said = self._tell("supernode", "register", str(public_key), "airtune", "--format", "json")
        return str(said["node-id"])

    def unregister(self, node: str) -> None:
        """Let a node take part no longer."""
        self._tell("supernode", "unregister", node, "airtune", "--format", "json")

    def _tell(self, *arguments: str) -> dict[str, object]:
        try:
            done = subprocess.run(
                [_program("flwr"), *arguments],
                env=environment(self._home),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_TELL_S,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"Flower did not answer within {_TELL_S:g} s.") from error
        # Its exit code is 0 for some failures, too.
        said = _json(done.stdout)
        if done.returncode != 0 or not said.get("success", False):
            told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise UserError(f"flwr {arguments[0]} failed: {' '.join(told)[-400:]}")
        return said


def supernode(
    superlink: str, port: int, home: Path, device: Path, ca: Path | None, key: Path | None
) -> Program:
    """Start a device's SuperNode, which runs our ClientApp, which speaks to the socket ``device``.

    ``port`` is that of its own loopback interface; without ``ca`` everything is in the clear.
    """
    return any_supernode(superlink, port, home, f'socket="{device}"', ca, key, "client")


def any_supernode(
    superlink: str,
    port: int,
    home: Path,
    config: str,
    ca: Path | None = None,
    key: Path | None = None,
    side: Side | None = None,
) -> Program:
    """Start a SuperNode with this configuration of Flower's for the apps that it runs."""
    check_port(_OWN, port)
    arguments = ["--superlink", superlink, "--host", _OWN, "--port", str(port)]
    arguments += ["--node-config", config, "--max-wait-time", str(_RETRY_S)]
    arguments += ["--insecure"] if ca is None else ["--root-certificates", str(ca)]
    if key is not None:
        arguments += ["--auth-supernode-private-key", str(key)]
    return Program("flower-supernode", arguments, home, side)


def environment(home: Path, programs: Path | None = None) -> dict[str, str]:
    """Return what Flower's programs see: nothing of another home, and no network but ours.

    With ``programs`` they find these by name and no others.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    path = path if programs is None else str(programs)
    return {**os.environ, **_QUIET, "FLWR_HOME": str(home), "PATH": path, "COLUMNS": "400"}


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise UserError if something else listens there: Flower would take it for its own."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise UserError(f"--port: {host}:{port} cannot be used ({error.strerror}).") from error


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _program(name: str) -> str:
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise UserError("Flower is not installed; install airtune[flower].")
    return str(path)


def _json(text: str) -> dict[str, object]:
    start = text.find("{")
    try:
        found = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
