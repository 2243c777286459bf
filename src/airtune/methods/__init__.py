"""Published systems, one file each."""

from airtune.methods.method import (
    Client,
    Delivery,
    Method,
    MethodConfig,
    Setup,
    SharingConfig,
    State,
    Work,
)

__all__ = [
    "Client",
    "Delivery",
    "Method",
    "MethodConfig",
    "Setup",
    "SharingConfig",
    "State",
    "Work",
]
