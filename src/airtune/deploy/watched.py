"""A program that ends with the one that started it, however that ends: killed ones clean nothing.

``python -m airtune.deploy.watched PROGRAM ...`` runs the program and everything that it starts for
as long as standard input is open, which is a pipe from the parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_LOOK_S = 0.2
_PATIENCE_S = 10.0


def start(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process; its exit code is that of what is returned."""
    return subprocess.Popen(
        [sys.executable, "-m", "airtune.deploy.watched", *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is for us, and its children end with it
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that was started here, and all that it started."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=2 * _PATIENCE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Run the program; return its exit code, 1 if it was killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is sent to all of the group below
    # What it starts would inherit that it is ignored.
    program = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    while program.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    os.killpg(0, signal.SIGTERM)
    try:
        code: int = program.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)  # this process too
        raise
    return code if code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
