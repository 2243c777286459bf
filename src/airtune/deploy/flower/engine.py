"""A run over Flower: the server's side, a device's side, and both on one machine for a trial."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from airtune.deploy import keys
from airtune.deploy.flower.carrier import MOST_BYTES, FlowerCarrier
from airtune.deploy.flower.door import Door
from airtune.deploy.flower.processes import (
    Program,
    SuperLink,
    Tls,
    check_port,
    free_port,
    supernode,
)
from airtune.deploy.meter import Meter
from airtune.errors import UserError

_APP_S = 120.0  # until Flower has started the ServerApp
_LOOK_S = 0.5
_AGAIN_S = 2.0
_NOT_IN = "[code: 2004]"  # of Flower: a node is not activated


@contextlib.contextmanager
def serving(
    host: str,
    port: int,
    tls_dir: Path | None,
    most_bytes: int = MOST_BYTES,
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[FlowerCarrier]:
    """Start a SuperLink and the run on it; yield what reaches the devices that join.

    Devices whose keys are in ``tls_dir`` may join, and be revoked while it runs: they reach a front
    (``door.py``), and an answer of theirs above ``most_bytes`` is not taken. Without ``tls_dir``
    every program of this machine may, in the clear. ``say`` gets a sentence about who is refused.
    Raises UserError where Flower does not start.
    """
    with _home() as home, contextlib.ExitStack() as stack:
        tls = None if tls_dir is None else _tls(tls_dir)
        check_port(host, port)
        link = SuperLink(port if tls is None else free_port(), home / "superlink", tls)
        stack.callback(link.program.end)
        members = Members(link, tls_dir, say)
        door = None
        if tls is not None:
            door = Door(host, port, tls, link.port, most_bytes, home / "front", say)
            stack.callback(door.end)

        def tidy() -> None:
            members.update()
            if door is not None:
                door.know(members.known())

        tidy()
        sent = None if door is None else door.sent
        carrier = FlowerCarrier(link.socket, link.program.why, tidy, sent)
        stack.callback(carrier.close)
        link.run()
        carrier.wait(_APP_S)
        yield carrier


def join(
    superlink: str,
    answer: Callable[[bytes], bytes],
    ca: Path | None,
    key: Path | None,
    wait_s: float,
    say: Callable[[str], None],
    meter: Meter | None = None,
) -> None:
    """Let a device answer letters that come by Flower, for as long as some come.

    They come through ``meter``, where there is one.

    A SuperNode that ends is started again: the server may not be there yet, not know the key yet,
    or have been started again itself. Raises UserError with Flower's reason after ``wait_s``
    without a letter in which the SuperNode ended.
    """
    last = [time.monotonic()]

    def heard(letter: bytes) -> bytes:
        last[0] = time.monotonic()
        try:
            return answer(letter)
        finally:
            last[0] = time.monotonic()

    with _home() as private:
        device = private / "device.sock"
        listening(device, heard)
        told = ""
        while True:
            _check_key(key)
            # Every server's certificate is good for 127.0.0.1.
            link = superlink if meter is None else f"127.0.0.1:{meter.port}"
            node = supernode(link, free_port(), private / "supernode", device, ca, key)
            try:
                while node.code() is None and not node.is_lost():
                    time.sleep(_LOOK_S)
            finally:
                node.end()
            why = (meter and meter.problem) or node.why()
            if _NOT_IN in why:
                why = "the server is starting, does not know the key, or has not missed it yet"
            if time.monotonic() - last[0] > wait_s:
                raise UserError(f"{superlink} does not let this device in: {why}")
            if why != told:
                told = why
                say(f"not connected to {superlink}, trying again: {told}")
            time.sleep(_AGAIN_S)


@contextlib.contextmanager
def trial(devices: Sequence[Path]) -> Iterator[FlowerCarrier]:
    """Start a SuperLink here and a SuperNode for each device that listens; yield a carrier."""
    port = free_port()
    with serving("127.0.0.1", port, None) as carrier, contextlib.ExitStack() as stack:
        home = stack.enter_context(_home())
        for number, device in enumerate(devices):
            own = home / f"supernode-{number}"
            link = f"127.0.0.1:{port}"
            node: Program = supernode(link, free_port(), own, device, None, None)
            stack.callback(node.end)
        yield carrier


def listening(path: Path, answer: Callable[[bytes], bytes]) -> None:
    """Answer letters on a socket in a thread; raise UserError for a path that cannot be one."""
    from airtune.deploy.sockets import answering, listener

    try:
        server = listener(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be a socket ({error}); set TMPDIR shorter.") from error
    threading.Thread(target=answering, args=(server, answer), daemon=True).start()


def _check_key(key: Path | None) -> None:
    """Raise UserError for a key that cannot be read: Flower would log where it lies."""
    try:
        if key is not None:
            key.read_bytes()
    except OSError as error:
        raise UserError(f"--key: the device's key cannot be read ({error.strerror}).") from error


class Members:
    """Which devices Flower knows, in step with the folder of keys."""

    def __init__(self, link: SuperLink, folder: Path | None, say: Callable[[str], None]) -> None:
        self._link, self._folder, self._say = link, folder, say
        self._nodes: dict[str, str] = {}
        self._keys: dict[bytes, str] = {}
        self._refused: set[str] = set()

    def known(self) -> dict[bytes, str]:
        """Return the names of devices by their keys."""
        return self._keys

    def update(self) -> None:
        """Register keys that were added, unregister those that were revoked."""
        if self._folder is None:
            return
        from airtune.deploy.flower.front import pem

        files = {file.stem: file for file in keys.registered(self._folder)}
        if files.keys() == self._nodes.keys() | (self._refused & files.keys()):
            return
        self._keys = {key: name for key, name in self._keys.items() if name in files}
        for name in self._nodes.keys() - files.keys():
            self._link.unregister(self._nodes.pop(name))
            self._say(f"the key of {name} was revoked; it takes part no longer")
        for name in sorted(files.keys() - self._nodes.keys() - self._refused):
            try:
                key = pem(files[name])
                self._nodes[name] = self._link.register(files[name])
                self._keys[key] = name
            except (UserError, OSError, ValueError) as error:  # a run goes on without it
                self._refused.add(name)
                self._say(f"the key of {name} is not taken: {error}")


def _tls(folder: Path) -> Tls:
    tls = Tls(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    for file in (tls.ca, tls.certificate, tls.key):
        if not file.is_file():
            raise UserError(f"--tls-dir: '{file}' is missing; make keys by airtune keys new.")
    return Tls(*(file.resolve() for file in (tls.ca, tls.certificate, tls.key)))


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """Yield a folder of this user alone; it stays where something went wrong, with its logs."""
    folder = Path(tempfile.mkdtemp(prefix="airtune-"))
    try:
        yield folder
    except UserError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
