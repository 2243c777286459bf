"""Preferences as data sets write them: a prompt with two answers, or two whole dialogues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

# A turn of a dialogue: "\n\nHuman: ...", "\n\nAssistant: ...", as Anthropic's data have it.
_TURN = re.compile(r"(?:^|\n\n)\w+:")
TO_ANSWER = "\n\nAssistant: "  # ends a dialogue that waits for an answer
_SPEAKERS = {"human": "Human", "user": "Human", "gpt": "Assistant", "assistant": "Assistant"}


def answer(cell: Any) -> str | None:
    """Return an answer as text: a text, a message, or a list of messages; None if it is neither."""
    if isinstance(cell, str):
        return cell
    messages = _messages(cell)
    if messages is None:
        return None
    return messages[0][1] if len(messages) == 1 else _dialogue(messages)


def question(cell: Any) -> str | None:
    """Return a prompt as text, a dialogue up to where the assistant is to answer; else None."""
    if isinstance(cell, str):
        return cell
    messages = _messages(cell)
    return None if messages is None else _dialogue(messages) + TO_ANSWER


def split(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return what two dialogues share, up to the last turn that both begin, and the two rests.

    Where no turns are marked they share whole words.
    """
    pairs = enumerate(zip(chosen, rejected, strict=False))
    apart = next((place for place, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    shared = chosen[:apart]
    turns = [match.end() for match in _TURN.finditer(shared)]
    end = turns[-1] if turns else shared.rfind(" ") + 1
    return chosen[:end], chosen[end:], rejected[end:]


def _dialogue(messages: list[tuple[str, str]]) -> str:
    return "".join(f"\n\n{who}: {text}" for who, text in messages)


def _messages(cell: Any) -> list[tuple[str, str]] | None:
    """Return (speaker, text) of each message: {from, value} or {role, content}."""
    cells = list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]
    found = []
    for each in cells:
        if not isinstance(each, Mapping):
            return None
        who, text = each.get("from", each.get("role")), each.get("value", each.get("content"))
        if not isinstance(who, str) or not isinstance(text, str):
            return None
        found.append((_SPEAKERS.get(who, who.capitalize()), text))
    return found or None
