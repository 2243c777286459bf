"""Federated fine-tuning of language models over wireless networks."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airtune.api import export, load, plan, run, write_report
    from airtune.errors import UserError
    from airtune.experiment import Experiment
    from airtune.results import Run

__version__ = version("airtune")
__all__ = ["Experiment", "Run", "UserError", "export", "load", "plan", "run", "write_report"]

_HOMES = {
    "Experiment": "airtune.experiment",
    "Run": "airtune.results",
    "UserError": "airtune.errors",
    "export": "airtune.api",
    "load": "airtune.api",
    "plan": "airtune.api",
    "run": "airtune.api",
    "write_report": "airtune.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `airtune --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'airtune' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
