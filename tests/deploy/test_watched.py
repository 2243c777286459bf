"""Programs that end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from airtune.deploy import watched

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def is_gone(pid, seconds=15.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "Z" in subprocess.run(["ps", "-o", "stat=", str(pid)], capture_output=True,
                                 text=True).stdout:  # fmt: skip
            return True
        time.sleep(0.05)
    return False


def test_its_exit_code_is_the_programs():
    process = watched.start([sys.executable, "-c", "import sys; sys.exit(3)"])
    assert process.wait(timeout=30) == 3


def test_what_it_starts_ends_with_the_parent_even_if_that_is_killed(tmp_path):
    note = tmp_path / "pid"
    inner = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = (
        "import sys, time; from airtune.deploy import watched;"
        f"watched.start([sys.executable, '-c', {inner!r}]); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer])
    while not (note.exists() and note.read_text()):
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert is_gone(int(note.read_text()))


def test_it_can_be_ended():
    process = watched.start(SLEEP)
    started = time.monotonic()
    watched.end(process)
    assert process.returncode is not None
    assert time.monotonic() - started < 20
