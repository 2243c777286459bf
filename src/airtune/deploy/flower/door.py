"""The front of a served run as the serving process has it: a program, told of keys and letters."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airtune.deploy import watched
from airtune.deploy.flower.processes import Tls, check_port
from airtune.errors import UserError
from airtune.federation import frames

_START_S, _AGAIN_S = 20.0, 1.0
_SAID = 1 << 16  # bytes of what the front tells at once


class Door:
    """Keeps a front (``front.py``) at ``host``:``port``; one that ends is started again."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: Tls,
        superlink: int,
        most_bytes: int,
        home: Path,
        say: Callable[[str], None],
    ) -> None:
        """Start; ``superlink`` is the port of Flower's server here, ``home`` a folder for it.

        ``most_bytes`` is the most that a device may answer to a letter, ``say`` gets a sentence
        about who answers more. Raises UserError if it does not start.
        """
        check_port(host, port)
        self.port = port
        self._where, self._say = f"{host}:{port}", say
        self._told = {
            "host": host, "port": port, "superlink": superlink, "most_bytes": most_bytes,
            "ca": str(tls.ca), "certificate": str(tls.certificate), "key": str(tls.key),
        }  # fmt: skip
        self._known: dict[str, str] = {}
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path, self._log = home / "front.sock", home / "front.log"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(1)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def know(self, devices: Mapping[bytes, str]) -> None:
        """Let these devices in, whose names are by their keys."""
        known = {key.decode(): name for key, name in devices.items()}
        if known != self._known:
            self._known = known
            self._tell({"known": known})

    def sent(self) -> None:
        """Take note that a letter goes out, whose answer may come."""
        self._tell({"letter": True})

    def end(self) -> None:
        """Stop serving."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        watched.end(self._process)
        self._watcher.join(timeout=2 * _START_S)
        self._listener.close()

    def _start(self) -> None:
        """Start a front; raise UserError if it does not serve."""
        process = None
        try:
            command = [sys.executable, "-m", "airtune.deploy.flower.front", str(self._path)]
            with self._log.open("ab") as log:
                process = watched.start(command, output=log)
            self._listener.settimeout(_START_S)
            line, _ = self._listener.accept()
            line.settimeout(_START_S)
            for told in (self._told, {"known": self._known}):
                frames.send(line, json.dumps(told).encode())
            frames.receive(line, _SAID)  # that it serves
            line.settimeout(None)
        except BaseException as error:
            if process is not None:
                watched.end(process)
            if not isinstance(error, OSError):
                raise
            raise UserError(f"--port: {self._where} cannot be served; see {self._log}.") from error
        with self._lock, contextlib.suppress(frames.ClosedError):
            self._line, self._process = line, process
            frames.send(line, json.dumps({"known": self._known}).encode())  # as it is by now

    def _watch(self) -> None:
        """Pass on what the front says, and start it again where it ends by itself."""
        while not self._over.is_set():
            try:
                self._say(json.loads(frames.receive(self._line, _SAID))["say"])
                continue
            except frames.ClosedError:
                watched.end(self._process)
            if self._over.is_set():
                return
            self._say("the front of the run ended, and is started again")
            time.sleep(_AGAIN_S)
            try:
                self._start()
            except UserError as error:
                self._say(str(error))
        watched.end(self._process)  # of a front that was started while the run ended

    def _tell(self, what: dict[str, Any]) -> None:
        with self._lock, contextlib.suppress(frames.ClosedError):  # it hears when it is back
            frames.send(self._line, json.dumps(what).encode())
