"""The server of the test bed: ``airtune serve`` that times an idle exchange after each round.

python -m benchmarks.shaped_links.server EXPERIMENT.json OUT KEYS PORT IDLE.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from airtune import api
from airtune.deploy.device import to_stderr
from airtune.deploy.flower.engine import serving
from airtune.experiment import Experiment
from airtune.federation.contents import Greeting
from airtune.federation.devices import Patience
from airtune.federation.letters import Letter, write
from airtune.federation.post import Carrier
from airtune.federation.records import RoundRow

_MOST_S = 60.0


def idle(carrier: Carrier) -> list[float]:
    """Return the seconds in which each device answered a letter that asks for next to nothing."""
    letter = write(Letter(bytes(16), 0, Greeting()))
    began = time.monotonic()
    waiting = {carrier.post(node, letter, _MOST_S) for node in carrier.nodes()}
    found: list[float] = []
    while waiting and time.monotonic() - began < _MOST_S:
        answers = carrier.collect(waiting, _MOST_S)
        waiting -= answers.keys()
        found += [time.monotonic() - began for each in answers.values() if each is not None]
    return found


def main() -> None:
    values, out, keys, port, times = sys.argv[1:]
    experiment = Experiment(**json.loads(Path(values).read_text(encoding="utf-8")))
    seconds: list[list[float]] = []
    with serving("0.0.0.0", int(port), Path(keys)) as carrier:

        def after(row: RoundRow) -> None:
            if row.round > 0:
                seconds.append(idle(carrier))

        patience = Patience(devices=120.0, answer=120.0)
        api.serve(experiment, carrier, out, on_round=after, say=to_stderr, patience=patience)
    Path(times).write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
