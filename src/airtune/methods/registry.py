"""Methods by name: those of this package and those that other packages plug in."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from airtune.errors import UserError, nearest
from airtune.methods.method import Method

GROUP = "airtune.methods"


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_entries())


def describe(name: str) -> str:
    """Return the first line of a method's docstring, or why a plug-in cannot be loaded."""
    try:
        return (find(name).__doc__ or "").strip().partition("\n")[0]
    except (ImportError, AttributeError, UserError) as error:
        return f"cannot be loaded: {error}"


def find(name: str) -> type[Method]:
    """Return the method class of that name; raise UserError if there is none."""
    if name not in _entries():
        raise UserError(f"method.name: there is no method '{name}'; {nearest(name, names())}")
    loaded = _entries()[name].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise UserError(
            f"method.name: the plug-in '{name}' ({_entries()[name].value}) is not a subclass of "
            "airtune.methods.Method."
        )
    return loaded
