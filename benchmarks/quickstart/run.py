"""The quickstart as a newcomer runs it; writes results.json, figure.png, README.md.

.venv/bin/python -m benchmarks.quickstart.run
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import airtune
from benchmarks.picture import photograph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [Path(sys.executable).with_name("airtune"), "run", ROOT / "examples/quickstart.yaml"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds = round(time.perf_counter() - started, 1)
        run = airtune.load(Path(folder) / "runs" / "quickstart")
        photograph(run.path / "report.html", HERE / "figure.png")
        results = {
            "claims": [
                {
                    "id": "Q1",
                    "what": "seconds from start to finish of the quickstart, two CPU cores",
                    "target": "<= 180",
                    "measured": seconds,
                    "holds": seconds <= 180,
                    "command": "python -m benchmarks.quickstart.run",
                }
            ],
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
            "versions": run.experiment.versions,
            "seeds": [run.experiment.seed],
            "summary": run.summary,
        }
        table = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    page = f"""# Quickstart

`airtune run examples/quickstart.yaml`, whole process: {seconds} s (target: at most 180 s after
installation) on {results["machine"]}. This page is written by `run.py`.

```
{table}
```

![the report](figure.png)
"""
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    main()
