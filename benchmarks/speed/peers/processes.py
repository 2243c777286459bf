"""Leave no process behind, whatever a peer does: Ray, worker processes, simulated sites."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


def end_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(children, timeout=10)


@contextmanager
def none_left() -> Iterator[None]:
    """End all child processes afterwards, and this one with exit code 1 after a failure.

    It ends by os._exit, because a peer's threads may still wait for answers that never come.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        yield
    except BaseException:
        traceback.print_exc()
        end_children()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    end_children()
