"""One device as a process of its own: ``python -m airtune.deploy.worker``, for trials and tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airtune.deploy.device import Device, Holdings, machine_of, to_stderr
from airtune.deploy.sockets import listen
from airtune.errors import UserError


def main() -> None:
    """Answer letters on a Unix socket until the process is ended."""
    parser = argparse.ArgumentParser(prog="airtune.deploy.worker", description=main.__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--train", required=True, help="file of rows to learn from")
    parser.add_argument("--test", help="file of rows to test on; default: some of the others")
    parser.add_argument("--personal", type=Path, required=True, help="folder of what it keeps")
    parser.add_argument("--client", type=int, help="its number among the clients")
    parser.add_argument("--device", default="cpu", help="cpu, cuda ...")
    given = parser.parse_args()
    try:
        machine = machine_of(given.device)
        holdings = Holdings(given.train, given.test, given.personal, machine, None, given.client)
        device = Device(holdings, to_stderr)
    except UserError as error:
        to_stderr(str(error))
        sys.exit(2)
    listen(given.socket, device.answer)


if __name__ == "__main__":
    main()
