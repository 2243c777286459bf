"""Which device is which client, kept over restarts of either side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from airtune.errors import UserError
from airtune.federation.contents import Greeting, Presence, Ready
from airtune.federation.post import Answer, Node, Post

_FILE = "devices.json"
_PASSING = {"machine", "working", "heard"}  # of a presence, not of a device
_MUTE_S, _AGAIN_S = 120.0, 5.0


class Roster:
    """The devices of a run by client, and where each can be reached now.

    Who comes first has no say: devices that were told a number take it, the others the free ones
    in the order of their names, once all are there.
    """

    def __init__(self, post: Post, count: int, say: Callable[[str], None]) -> None:
        self._post, self._count, self._say = post, count, say
        self._known: list[Presence] = []  # by client, once the run has begun
        self.ready: dict[int, Ready] = {}  # what each said when it was set up
        self._greeted: dict[Node, Presence] = {}
        self._mute: dict[Node, float] = {}  # who did not answer, until when it is left alone
        self._heard: dict[Node, Presence] = {}  # what was said of whom
        self._turned_away: set[tuple[str, int | None]] = set()

    @property
    def members(self) -> list[Presence]:
        """What each client's device said of itself, by client."""
        return self._known

    def gather(self, wait_s: float, greet_s: float) -> None:
        """Wait until all devices are there; of a run that goes on, until one is.

        Raises UserError where they are not there in time.
        """
        end = time.monotonic() + wait_s
        while True:
            self.refresh(greet_s)
            members = self._known or self._chosen()
            here = {each.device for each in self._greeted.values()}
            missing = self._count - sum(each.device in here for each in members)
            if missing == 0:
                self._known = members
                return
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        if not self._known or missing == self._count:
            if len(here) < len(self._greeted):
                raise UserError(
                    "two devices have one name; give each a --personal folder of its own."
                )
            raise UserError(
                f"{missing} of {self._count} devices did not come within {wait_s:g} s; start them "
                "with airtune join, or give a smaller --clients."
            )
        self._say(f"going on without {missing} of {self._count} devices, which may come later")

    def refresh(self, greet_s: float) -> None:
        """Greet the nodes that are new, forget those that are gone."""
        nodes, now = set(self._post.nodes()), time.monotonic()
        self._greeted = {n: presence for n, presence in self._greeted.items() if n in nodes}
        self._heard = {n: presence for n, presence in self._heard.items() if n in nodes}
        mute = {node for node, until in self._mute.items() if now < until}
        new = {node: (Greeting(), b"") for node in sorted(nodes - self._greeted.keys() - mute)}
        if not new:
            return
        for node, found in self._post.ask(new, Presence, greet_s).items():
            if isinstance(found, Answer):
                self._greeted[node] = found.content
                self._post.start_above(found.content.heard)
                if self._heard.get(node) != found.content:
                    self._heard[node] = found.content
                    self._check(found.content)
            elif found.late:
                self._mute[node] = time.monotonic() + _MUTE_S

    def node(self, client: int) -> Node | None:
        """Return where a client's device is reached, None if it is not there."""
        known = self._known[client]
        for node, presence in self._greeted.items():
            if _alike(presence, known):
                return node
        return None

    def save(self, folder: Path) -> None:
        """Write which device is which client beside what else the run keeps."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {
            "run": self._post.run.hex(),
            "devices": [each.model_dump(exclude=_PASSING) for each in self._known],
            "ready": [self.ready[client].model_dump() for client in range(len(self._known))],
        }
        text = json.dumps(saved, indent=1)
        temporary = folder / f"{_FILE}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(folder / _FILE)

    def recall(self, folder: Path) -> None:
        """Go on with the devices of a run that began before; raise UserError if damaged."""
        _, self._known, ready = _read(folder)
        self.ready = dict(enumerate(ready))

    def _chosen(self) -> list[Presence]:
        """Return the devices of clients, as far as there is one for each."""
        devices = {each.device: each for each in self._greeted.values()}
        chosen: dict[int, Presence] = {}
        for presence in sorted(devices.values(), key=lambda each: each.device):
            if presence.wanted is None:
                continue
            if presence.wanted >= self._count or presence.wanted in chosen:
                self._turn_away(presence)
            else:
                chosen[presence.wanted] = presence
        free = (each for each in range(self._count) if each not in chosen)
        others = (devices[name] for name in sorted(devices) if devices[name].wanted is None)
        chosen |= dict(zip(free, others, strict=False))
        return [chosen[client] for client in sorted(chosen)]

    def _turn_away(self, presence: Presence) -> None:
        """Say once that a device cannot be who it is to be; the others wait for another one.

        It is greeted again after a while: with another number it may be reached as before.
        """
        for node in [n for n, each in self._greeted.items() if each.device == presence.device]:
            del self._greeted[node]
            self._mute[node] = time.monotonic() + _AGAIN_S
        if (presence.device, presence.wanted) not in self._turned_away:
            self._turned_away.add((presence.device, presence.wanted))
            self._say(
                f"device {presence.device} is to be client {presence.wanted}, which is taken or "
                f"not below {self._count}; start it with another --client"
            )

    def _check(self, presence: Presence) -> None:
        """Say who came, and what is wrong with who cannot take part."""
        known = next((each for each in self._known if each.device == presence.device), None)
        if self._known and known is None:
            self._say(f"device {presence.device} is none of this run's and is left alone")
        elif known is not None and not _alike(presence, known):
            self._say(f"device {presence.device} came back with other rows and is left alone")
        else:
            self._say(f"device {presence.device} is here with {presence.rows} rows")


def run_name(folder: Path) -> bytes | None:
    """Return the name of the run that keeps its devices in a folder, None if there is none."""
    return _read(folder)[0] if (folder / _FILE).exists() else None


def _read(folder: Path) -> tuple[bytes, list[Presence], list[Ready]]:
    try:
        saved = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        devices = [Presence.model_validate(each) for each in saved["devices"]]
        ready = [Ready.model_validate(each) for each in saved["ready"]]
        return bytes.fromhex(saved["run"]), devices, ready
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"'{folder / _FILE}' cannot be read; start again in another directory."
        ) from error


def _alike(one: Presence, other: Presence) -> bool:
    """Return whether two presences are of one device with the same rows."""
    return (one.device, one.rows, one.test_rows) == (other.device, other.rows, other.test_rows)
