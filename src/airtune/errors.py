"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's input is wrong; the message is one sentence that says what to do.

    The command line prints the message alone and exits with code 2.
    """


_LISTED = 30  # valid words that a hint has room for


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a hint naming the valid word closest to ``word``, or the valid words if none is."""
    valid = sorted(valid)
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(valid) - _LISTED} more" if len(valid) > _LISTED else ""
    return f"valid are: {', '.join(valid[:_LISTED])}{more}."
