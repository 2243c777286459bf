"""What one client keeps between rounds, on its own disk, by the round that made it."""

from __future__ import annotations

import copy
from pathlib import Path

from airtune.federation import checkpoint
from airtune.methods.views import State


class RoundStates:
    """The states of a device's one client; every one is on disk before the round is answered.

    A server that was killed repeats the rounds behind its last checkpoint, and a client must then
    go on from what it kept before them. So states stay until the server says that it will not
    return to their rounds.
    """

    def __init__(self, folder: Path) -> None:
        """Go on with what lies in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._rounds = sorted(int(file.stem) for file in folder.glob("*.safetensors"))
        self._round = 0
        self._held: tuple[int, State] | None = None

    def begin(self, round: int, settled: int) -> None:
        """Turn to a round to be trained: states of it and of later ones belong to another past.

        ``settled`` is the last round that will never be repeated.
        """
        for later in [each for each in self._rounds if each >= round]:
            self._remove(later)
        for older in [each for each in self._rounds if each <= settled][:-1]:
            self._remove(older)
        self._round = round

    def look(self, round: int) -> None:
        """Turn to the time after a round, to be looked at only."""
        self._round = round + 1

    def __contains__(self, client: int) -> bool:
        return self._last() is not None

    def get(self, client: int) -> State:
        """Return a copy of what the client had when the round began, empty if it had nothing."""
        del client
        last = self._last()
        if last is None:
            return {}
        if self._held is None or self._held[0] != last:
            saved = checkpoint.load(self._path(last))
            assert saved is not None
            self._held = last, saved["state"]
        return copy.deepcopy(self._held[1])

    def put(self, client: int, state: State) -> None:
        """Keep what the round made."""
        del client
        checkpoint.save(self._path(self._round), {"state": state})
        self._rounds = sorted({*self._rounds, self._round})
        self._held = None  # read again: what is kept must be what a restart would find

    def _last(self) -> int | None:
        return max((each for each in self._rounds if each < self._round), default=None)

    def _remove(self, round: int) -> None:
        self._path(round).unlink(missing_ok=True)
        self._rounds.remove(round)
        if self._held is not None and self._held[0] == round:
            self._held = None

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:08d}.safetensors"
