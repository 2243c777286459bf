"""Photographs of HTML reports, where Chromium is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=10000",
]  # fmt: skip


def photograph(
    page: Path, image: Path, size: tuple[int, int] = (1200, 1280), scale: float = 1.0
) -> None:
    """Write the top of a page as PNG; say so where that cannot be done.

    ``size`` is that of the window, of which each pixel becomes ``scale`` pixels along each side.
    """
    if shutil.which("chromium") is None:
        print(f"{image} not drawn: chromium is not installed")
        return
    with tempfile.TemporaryDirectory() as profile:
        own = [
            f"--user-data-dir={profile}", f"--screenshot={image.resolve()}",
            f"--window-size={size[0]},{size[1]}", f"--force-device-scale-factor={scale:g}",
        ]  # fmt: skip
        command = [*CHROMIUM, *own, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
