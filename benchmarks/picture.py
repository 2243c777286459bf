"""Photographs of HTML reports, where Chromium is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=10000", "--window-size=1200,1280",
]  # fmt: skip


def photograph(page: Path, image: Path) -> None:
    """Write the top of a page as PNG; say so where that cannot be done."""
    if shutil.which("chromium") is None:
        print(f"{image} not drawn: chromium is not installed")
        return
    with tempfile.TemporaryDirectory() as profile:
        command = [*CHROMIUM, f"--user-data-dir={profile}", f"--screenshot={image.resolve()}"]
        subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)
