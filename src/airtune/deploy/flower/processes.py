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
from airtune.errors import UserError

_LINK_S = 60.0
_TELL_S = 60.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = re.compile(r"\[code: |CERTIFICATE|Error:|refused")
_LOST = re.compile(rb"Giving up reconnection|\[code: 2\d\d\d\]")
_LONGEST = 64  # bytes that may be the beginning of such words
_RETRY_S = 20  # after which a SuperNode gives up, to be started again
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "HF_HUB_OFFLINE": "1",
}
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "airtune-carrier"
version = "1.0.0"
description = "Carries letters between an airtune server and its devices"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "airtune"

[tool.flwr.app.components]
serverapp = "carrier.server:app"
clientapp = "carrier.client:app"

[tool.flwr.app.config]
socket = ""
"""


@dataclass(frozen=True)
class Tls:
    """Files of the server's side: its certificate and key, and who signed the certificate."""

    ca: Path
    certificate: Path
    key: Path


class Program:
    """One of Flower's programs, its output in a file."""

    def __init__(self, name: str, arguments: Sequence[str], home: Path) -> None:
        """Start it with ``home`` as all that it may write to."""
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name, self.log = name, home / f"{name}.log"
        with self.log.open("ab") as log:
            self._begin = log.tell()
            command = [_program(name), *arguments]
            self._process = watched.start(command, environment(home), log)

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

    def __init__(self, host: str, port: int, home: Path, tls: Tls | None) -> None:
        """Start it and wait until it answers; without ``tls`` everything is in the clear.

        Raises UserError if it does not start.
        """
        check_port(host, port)
        self._home = home
        own = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        arguments = [
            "--host",
            host,
            "--port",
            str(port),
            "--disable-runtime-dependency-installation",
        ]
        if tls is None:
            arguments.append("--insecure")
        else:
            arguments += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate)]
            arguments += ["--ssl-keyfile", str(tls.key), "--enable-supernode-auth"]
        self.program = Program("flower-superlink", arguments, home)
        connection = f'[superlink.airtune]\naddress = "{own}:{port}"\n'
        connection += "insecure = true\n" if tls is None else f'root-certificates = "{tls.ca}"\n'
        (home / "config.toml").write_text(connection, encoding="utf-8")
        end = time.monotonic() + _LINK_S
        while not _answers(own, port):
            if self.program.code() is not None or time.monotonic() > end:
                self.program.end()
                raise UserError(f"Flower's SuperLink did not start: {self.program.why()}")
            time.sleep(0.1)

    def run(self, carrier: Path) -> None:
        """Submit the app whose ServerApp connects to ``carrier``; raise UserError if refused."""
        app = write_app(self._home / "app")
        told = ["--run-config", f'socket="{carrier}"', "--format", "json"]
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
    """Start a device's SuperNode, whose ClientApp speaks to the socket ``device``.

    ``port`` is that of its own loopback interface; without ``ca`` everything is in the clear.
    """
    check_port("127.0.0.1", port)
    arguments = ["--superlink", superlink, "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--node-config", f'socket="{device}"', "--max-wait-time", str(_RETRY_S)]
    arguments += ["--insecure"] if ca is None else ["--root-certificates", str(ca)]
    if key is not None:
        arguments += ["--auth-supernode-private-key", str(key)]
    return Program("flower-supernode", arguments, home)


def write_app(folder: Path) -> Path:
    """Write the app that Flower is given: its two halves are in the installed airtune."""
    package = folder / "carrier"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
    (package / "__init__.py").write_text("", encoding="utf-8")
    for side in ("server", "client"):
        text = f"from airtune.deploy.flower.shims import {side}_app\n\napp = {side}_app()\n"
        (package / f"{side}.py").write_text(text, encoding="utf-8")
    return folder


def environment(home: Path) -> dict[str, str]:
    """Return what Flower's programs see: nothing of another home, and no network but ours."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
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
