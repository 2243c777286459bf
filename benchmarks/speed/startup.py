"""Seconds from process start to the first round, beside the imports alone.

python -m benchmarks.speed.startup imports|airtune EXPERIMENT.yaml

Prints ``seconds since the process was started`` and ends. ``airtune`` is what ``airtune run`` does
until the untrained model (round 0) is about to be evaluated; ``imports`` ends after the three
libraries that any such program needs.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time


def _age() -> float:
    import psutil

    return time.time() - psutil.Process().create_time()


def main() -> None:
    if sys.argv[1] == "imports":
        for name in ("torch", "transformers", "peft"):
            importlib.import_module(name)
    else:
        from airtune import cli
        from airtune.federation.session import Session

        def first_round(self: Session) -> None:
            print(_age(), flush=True)
            os._exit(0)

        Session.rounds = first_round  # type: ignore[assignment, method-assign]
        with tempfile.TemporaryDirectory() as out:
            sys.argv = ["airtune", "run", sys.argv[2], "--out", f"{out}/run", "--quiet"]
            cli.main()
    print(_age(), flush=True)


if __name__ == "__main__":
    main()
