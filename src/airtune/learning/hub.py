"""Whether a model hub can be reached: asked once, answered in seconds rather than by retries."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from airtune.errors import UserError


@cache
def reachable() -> bool:
    """Return whether the hub's host answers; a configured proxy is taken for an answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = urlsplit(constants.ENDPOINT)
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True
    try:
        port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
        socket.create_connection((endpoint.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


def looks_like_path(name: str) -> bool:
    """Return whether a user who wrote ``name`` meant a folder or file rather than a hub name."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()


def unavailable(what: str, name: str, where: str, advice: str = "give a local path") -> UserError:
    """Return the error for a hub name that is neither cached nor within reach."""
    return UserError(
        f"{where}: the {what} '{name}' is neither a local path nor in the local cache, and "
        f"{'the hub does not have it' if reachable() else 'no hub can be reached'}; {advice}."
    )
