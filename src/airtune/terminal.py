"""What the commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

console = Console()

File = Annotated[Path, typer.Argument(help="experiment in YAML", show_default=False)]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads Optional on every version we support
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="override one key; may be repeated"),
]
