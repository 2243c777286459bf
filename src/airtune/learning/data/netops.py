"""The `netops` task: requests to a network-operations assistant, written by a small grammar.

Every row is a function of its own key, so the data need no download and are equal everywhere.
A row serves three uses: ``label`` is its intent, ``response`` its answer, ``team`` its client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from airtune import keyed
from airtune.learning.data.netops_grammar import (
    ASIDES,
    CHAT,
    INTENTS,
    PHRASES,
    SCENES,
    SHORT,
    SLOTS,
    TEAMS,
    Team,
)

T = TypeVar("T")

PHRASE = re.compile(r"<(\w+)>")
CHOICE = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"\{(\w+)\}")
PLAIN_WORD = re.compile(r"(?<![\w{])[a-z]{5,}(?![\w}])")
SHORTENED = re.compile(r"(?<![\w{])(" + "|".join(SHORT) + r")(?![\w}])")
SENTENCE_START = re.compile(r"(?:^|(?<=[.?] ))[a-z]")


class Row(NamedTuple):
    """One example; its fields are the columns."""

    text: str
    label: str
    team: str
    prompt: str
    response: str


def generate(
    train: int = 5000, test: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the train and the test frame; no text occurs twice within or across them.

    Their columns are ``text``, ``label`` (the intent), ``team``, ``prompt`` (equal to ``text``)
    and ``response``. All intents are equally frequent, up to one text.
    """
    seen: set[str] = set()
    return (
        _frame(train, seed, "netops train", seen),
        _frame(test, seed, "netops test", seen),
    )


def corpus(stories: int, seed: int = 0) -> list[str]:
    """Return ``stories`` lines of prose and dialogue in the same language, for pretraining.

    No request meets its answer or the name of its intent here: that is left to fine-tuning.
    """
    return [_story(_Draw(seed, "netops corpus", n)) for n in range(stories)]


class _Draw:
    """Choices made from uniform numbers alone, the stream that NumPy keeps across versions."""

    def __init__(self, seed: int, purpose: str, *indices: int) -> None:
        self._rng = keyed.generator(seed, purpose, *indices)

    def chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def one(self, options: Sequence[T]) -> T:
        return options[int(self._rng.random() * len(options))]

    def weighted(self, options: Sequence[T], weights: Sequence[int]) -> T:
        point = self._rng.random() * sum(weights)
        return next(o for o, top in zip(options, accumulate(weights), strict=True) if point < top)

    def phrase(self, rule: str) -> str:
        """Expand a rule of the grammar, leaving its slots in place."""
        rule = _spelled_out(rule)
        while "(" in rule:
            rule = CHOICE.sub(lambda m: self.one(m[1].split("|")), rule)
        return " ".join(rule.split()).replace(" ?", "?").replace(" ,", ",")


@cache
def _spelled_out(rule: str) -> str:
    """Replace the names of phrases by what they stand for, to the end."""
    while "<" in rule:
        rule = PHRASE.sub(lambda m: PHRASES[m[1]], rule)
    return rule


def _rules(grammar: str) -> dict[str, dict[str, list[str]]]:
    """Parse the intents: names at the margin, rules indented by two, their continuations deeper."""
    rules: dict[str, dict[str, list[str]]] = {}
    for block in re.split(r"\n(?=\w)", grammar.strip()):
        name, *lines = re.sub(r"\n {4,}", " ", block).splitlines()
        rules[name] = {}
        for line in lines:
            kind, rule = line.strip().split(": ", 1)
            rules[name].setdefault(kind, []).append(rule)
    return rules


RULES = _rules(INTENTS)
LABELS = tuple(RULES)


def _frame(count: int, seed: int, purpose: str, seen: set[str]) -> pd.DataFrame:
    # Sorting uniform numbers shuffles; permutation() may change between NumPy versions.
    order = np.argsort(keyed.generator(seed, purpose).random(count), kind="stable")
    rows = []
    for n in order.tolist():
        attempt = 0
        row = _row(_Draw(seed, purpose, n, attempt), LABELS[n % len(LABELS)])
        while row.text.casefold() in seen:
            attempt += 1
            row = _row(_Draw(seed, purpose, n, attempt), row.label)
        seen.add(row.text.casefold())
        rows.append(row)
    return pd.DataFrame(rows, columns=list(Row._fields))


def _row(draw: _Draw, label: str) -> Row:
    topic = label.split("_")[0]
    name = draw.weighted(tuple(TEAMS), [team.topics.get(topic, 1) for team in TEAMS.values()])
    team = TEAMS[name]
    style = _style(draw, team)
    request = _worn(draw, _request(draw, label, team, style), team)
    # The form of the request fixes the answer, so that a model can get it right word for word.
    answer = RULES[label]["say"][0 if style == "ask" else 1]
    values = _values(draw, request, team)
    text = request.format(**values)
    return Row(text, label, name, text, answer.format(**values))


def _style(draw: _Draw, team: Team) -> str:
    return draw.weighted(("do", "ask", "note"), team.styles)


def _request(draw: _Draw, label: str, team: Team, style: str) -> str:
    text = draw.phrase(draw.one(RULES[label][style]))
    if style == "do":
        text = draw.one(team.frames).replace("*", text)
    if draw.chance(ASIDES):
        aside = _aside(draw, draw.one([other for other in LABELS if other != label]))
        if draw.chance(0.5):
            text = f"{aside}{draw.phrase('<join>')} {text}"
        else:
            text = _append(text, draw.phrase("<add>"), aside)
    text = f"{draw.phrase(team.greeting)} {text}".strip()
    closing = draw.phrase(team.closing)
    return _append(text, ",", closing) if closing else text


def _aside(draw: _Draw, label: str) -> str:
    (act,), (done,) = RULES[label]["act"], RULES[label]["done"]
    return draw.phrase(draw.one((f"<noneed> {act}", done)))


def _append(text: str, link: str, addition: str) -> str:
    return f"{text} {addition}" if text.endswith("?") else f"{text}{link} {addition}"


def _worn(draw: _Draw, text: str, team: Team) -> str:
    """Apply the team's abbreviations, slips of the fingers and case; slots stay intact."""
    if draw.chance(team.short):
        text = SHORTENED.sub(lambda m: SHORT[m[1]], text)
    words = list(PLAIN_WORD.finditer(text))
    if words and draw.chance(team.typos):
        at = draw.one(words).start() + 1 + int(draw.chance(0.5))
        slip = text[at + 1] + text[at] if draw.chance(0.6) else text[at]
        text = text[:at] + slip + text[at + 2 :]
    if team.lower:
        return text
    text = SENTENCE_START.sub(lambda m: m[0].upper(), text)
    return text if text.endswith("?") else text + "."


def _values(draw: _Draw, text: str, team: Team) -> dict[str, str]:
    values = {name: draw.one(SLOTS[name]) for name in dict.fromkeys(SLOT.findall(text))}
    if "cell" in values:
        values["cell"] = f"{team.cell} {values['cell']}"
    return values


def _story(draw: _Draw) -> str:
    name = draw.one(tuple(TEAMS))
    team, first, second = TEAMS[name], draw.one(LABELS), draw.one(LABELS)
    kind = draw.weighted(("scene", "talk", "log"), (2, 2, 1))
    if kind == "scene":
        facts = [draw.phrase(RULES[label]["done"][0]) for label in (first, second)]
        line = f"{draw.phrase(draw.one(SCENES))}, {' and '.join(facts)}."
    elif kind == "talk":
        asked = _worn(draw, _request(draw, first, team, _style(draw, team)), team)
        listener = draw.one([other for other in TEAMS if other != name])
        line = f"{name}: {asked} {listener}: {draw.phrase(draw.one(CHAT))}"
    else:
        line = f"Log of {name}: {draw.one(RULES[first]['say'])} {draw.one(RULES[second]['say'])}"
    return line.format(**_values(draw, line, team))
