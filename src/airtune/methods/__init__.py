"""Published systems, one file each."""

from airtune.methods.method import Method, MethodConfig, SharingConfig
from airtune.methods.views import Client, Delivery, Setup, State, Work

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
