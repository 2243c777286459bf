"""Answers as they come, fetched for each message apart.

Flower's grid hands over an answer once all of it is there, and until then waits within its call,
for up to two hours, for a device that has announced an answer and is slow to send it, or never
does. Asked for many answers at once, it would make all wait for that one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1
_EACH_S = 0.02  # so that many who wait do not ask the server without a pause


class Pulls(Generic[T]):
    """Fetches by ``pull``, which returns what one message's answer is, or nothing yet."""

    def __init__(self, pull: Callable[[str], list[T]]) -> None:
        self._pull, self._lock = pull, threading.Lock()
        self._asked: set[str] = set()
        self._found: dict[str, T] = {}
        self._failed: BaseException | None = None

    def here(self, names: Iterable[str]) -> dict[str, T]:
        """Return the answers that are there, each once; raise what any of the calls raised."""
        wanted = list(names)
        for name in wanted:
            if name not in self._asked:
                self._asked.add(name)
                threading.Thread(target=self._fetch, args=(name,), daemon=True).start()
        with self._lock:
            if self._failed is not None:
                raise self._failed
            here = {name: self._found.pop(name) for name in wanted if name in self._found}
        self._asked.difference_update(here)
        return here

    def _fetch(self, name: str) -> None:
        try:
            while not (found := self._pull(name)):
                time.sleep(max(_POLL_S, _EACH_S * len(self._asked)))
        except BaseException as error:
            with self._lock:
                self._failed = error
            return
        with self._lock:
            self._found[name] = found[0]
