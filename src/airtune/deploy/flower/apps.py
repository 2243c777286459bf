"""The app that Flower is given, and the programs that run it: ours, whatever code came by the wire.

Flower's programs install and execute the app of any run that they hear of. Who may submit runs is
settled elsewhere (``front.py``); here code that comes with one is not loaded. Flower starts a
program by its name for each task, so a folder with nothing else in it is all that a SuperLink or a
SuperNode finds by name; what stands there runs this module.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Side = Literal["server", "client"]
RUN_SOCKET = "AIRTUNE_RUN_SOCKET"
_END_S = 15.0  # to tell the SuperLink that the run is over

# Where Flower's programs take up the code of an app.
_LOADERS = {
    "server": ("flwr.superlink.runtime.run_serverapp", "run_"),
    "client": ("flwr.supernode.runtime.run_clientapp", "get_load_client_app_fn"),
}
_COMMANDS = {
    "server": ("flwr.superlink.cli", "flwr_serverapp"),
    "client": ("flwr.supernode.cli", "flwr_clientapp"),
}
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "airtune-carrier"
version = "1.0.0"
description = "Carries letters between an airtune server and its devices"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "airtune"

[tool.flwr.app.components]
serverapp = "carrier.server:app"
clientapp = "carrier.client:app"

[tool.flwr.app.config]
socket = ""
"""


def write_app(folder: Path) -> Path:
    """Write the app that Flower is given: its two halves are in the installed airtune."""
    package = folder / "carrier"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
    (package / "__init__.py").write_text("", encoding="utf-8")
    for side in ("server", "client"):
        text = f"from airtune.deploy.flower.shims import {side}_app\n\napp = {side}_app()\n"
        (package / f"{side}.py").write_text(text, encoding="utf-8")
    return folder


def write_programs(folder: Path, side: Side, run: Path | None = None) -> Path:
    """Write all that Flower may start on this side of a run, for PATH.

    ``run`` is the socket that the server's app connects to, whatever a run's settings say.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    python = shlex.quote(sys.executable)
    executor = shlex.quote(str(Path(sys.executable).parent / "flower-superexec"))
    app = f"{python} -m airtune.deploy.flower.apps {side}"
    for name, command in (("flower-superexec", executor), (f"flwr-{side}app", app)):
        path = folder / name
        told = "" if run is None else f"export {RUN_SOCKET}={shlex.quote(str(run))}\n"
        path.write_text(f'#!/bin/sh\n{told}exec {command} "$@"\n', encoding="utf-8")
        path.chmod(0o700)
    return folder


def ours(side: Side) -> Callable[..., Any]:
    """Return what stands where Flower would load the app that came with a run."""
    if side == "server":
        from flwr.server.run_serverapp import run

        from airtune.deploy.flower.shims import server_app

        _look_often()

        def relay(grid: Any, context: Any, **theirs: Any) -> Any:
            del theirs
            try:
                app = server_app(os.environ.get(RUN_SOCKET))
                return run(grid, context, "", loaded_server_app=app)
            finally:
                # Flower's calls that still wait for an answer would keep the process alive.
                last = threading.Timer(_END_S, os._exit, (0,))
                last.daemon = True
                last.start()

        return relay
    from airtune.deploy.flower.shims import client_app

    return lambda **theirs: lambda *fab: client_app()


def _look_often() -> None:
    """Let Flower look for the rest of an answer twice a second, not after up to ten seconds."""
    from flwr.superlink.grid import http_grid

    http_grid.pull_objects = partial(
        http_grid.pull_objects, max_tries_per_object=None, initial_backoff=0.25, backoff_cap=0.5
    )


def main() -> None:
    """Run one of Flower's programs with our app in the place of the one that it was sent."""
    side, *rest = sys.argv[1:]
    module, name = _LOADERS[side]
    found = import_module(module)
    if not callable(getattr(found, name, None)):
        sys.exit(f"this version of Flower has no {module}.{name}: its apps cannot be held to ours.")
    setattr(found, name, ours("server" if side == "server" else "client"))
    sys.argv = [f"flwr-{side}app", *rest]
    module, name = _COMMANDS[side]
    getattr(import_module(module), name)()


if __name__ == "__main__":
    main()
