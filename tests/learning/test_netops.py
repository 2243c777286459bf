import hashlib
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from airtune.learning.data import netops

Frames = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def frames() -> Frames:
    return netops.generate()


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


def counts(texts: pd.Series, vocabulary: dict[str, int]) -> np.ndarray:
    matrix = np.zeros((len(texts), len(vocabulary)), np.float32)
    for row, text in enumerate(texts):
        for token in tokens(text):
            if token in vocabulary:
                matrix[row, vocabulary[token]] = 1
    return matrix


def one_keyword_accuracy(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Each intent is recognised by the single token whose F1 for it is best."""
    sizes = Counter(train.label)
    overall: Counter[str] = Counter()
    within: dict[str, Counter[str]] = {label: Counter() for label in sizes}
    for text, label in zip(train.text, train.label, strict=True):
        present = set(tokens(text))
        overall.update(present)
        within[label].update(present)
    keyword = {
        label: max((2 * n / (overall[token] + sizes[label]), token) for token, n in hits.items())
        for label, hits in within.items()
    }

    def guess(text: str) -> str:
        present = set(tokens(text))
        return max((f1, label) for label, (f1, token) in keyword.items() if token in present)[1]

    rules = {token for _, token in keyword.values()}
    right = sum(
        bool(rules & set(tokens(text))) and guess(text) == label
        for text, label in zip(test.text, test.label, strict=True)
    )
    return right / len(test)


def naive_bayes_accuracy(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """A linear model of the bag of words whose weights need one pass, no optimiser."""
    vocabulary = {token: n for n, token in enumerate(sorted(set(tokens(" ".join(train.text)))))}
    labels = sorted(set(train.label))
    x, y = counts(train.text, vocabulary), train.label.to_numpy()
    mass = np.stack([x[y == label].sum(0) for label in labels]) + 0.1
    scores = counts(test.text, vocabulary) @ np.log(mass / mass.sum(1, keepdims=True)).T
    return float((np.array(labels)[scores.argmax(1)] == test.label.to_numpy()).mean())


def test_counts_and_columns(frames: Frames) -> None:
    train, test = frames
    assert (len(train), len(test)) == (5000, 1000)
    for frame in frames:
        assert list(frame.columns) == ["text", "label", "team", "prompt", "response"]
        assert frame.label.nunique() >= 24
        assert 8 <= frame.team.nunique() <= 12
        assert (frame.prompt == frame.text).all()


def test_no_text_occurs_twice(frames: Frames) -> None:
    texts = [text.casefold() for frame in frames for text in frame.text]
    assert len(set(texts)) == 6000


def test_the_whole_output_is_pinned(frames: Frames) -> None:
    digest = hashlib.sha256()
    for frame in frames:
        for row in frame.itertuples(index=False):
            digest.update("\t".join(row).encode() + b"\n")
    assert digest.hexdigest() == "d05d1a8cda087df99b73288e89401aecc3ff662a8a40ee997d1fb9dfb74b42ca"


def test_another_seed_gives_other_texts(frames: Frames) -> None:
    other, _ = netops.generate(200, 0, seed=1)
    assert len(set(other.text) & set(frames[0].text)) <= 2


def test_intents_are_balanced(frames: Frames) -> None:
    for frame in frames:
        sizes = frame.label.value_counts()
        assert sizes.max() - sizes.min() <= 1


def test_teams_have_different_mixes(frames: Frames) -> None:
    mixes = pd.crosstab(frames[0].team, frames[0].label, normalize="index").to_numpy()
    distance = np.abs(mixes[:, None] - mixes[None]).sum(-1) / 2
    assert distance[~np.eye(len(mixes), dtype=bool)].min() > 0.25
    assert frames[0].team.value_counts().min() > 200


def test_teams_have_different_habits(frames: Frames) -> None:
    questions = frames[0].text.str.contains("?", regex=False).groupby(frames[0].team).mean()
    assert questions.max() > 2 * questions.min()


def test_answers_name_the_values_of_their_request(frames: Frames) -> None:
    for text, response in zip(frames[0].text, frames[0].response, strict=True):
        assert not set("{}<>|(") & set(text + response)
        assert all(value in text for value in re.findall(r"[\w.-]*\d[\d.:]*\b", response))


def test_one_request_form_has_one_answer_form() -> None:
    for rules in netops.RULES.values():
        assert set(rules) == {"do", "ask", "note", "act", "done", "say"}
        assert (len(rules["act"]), len(rules["done"]), len(rules["say"])) == (1, 1, 2)


def test_no_single_keyword_solves_it(frames: Frames) -> None:
    assert one_keyword_accuracy(*frames) <= 0.6


def test_a_bag_of_words_learns_it(frames: Frames) -> None:
    train, test = frames
    assert naive_bayes_accuracy(train, test) >= one_keyword_accuracy(train, test) + 0.35
    assert 0.4 <= naive_bayes_accuracy(train[:500], test) <= 0.85


def test_the_corpus_repeats_no_row(frames: Frames) -> None:
    lines = netops.corpus(2000)
    assert lines == netops.corpus(2000)
    assert lines[:10] == netops.corpus(10)
    assert lines != netops.corpus(2000, seed=1)
    joined = "\n".join(lines)
    assert not any(text in joined for frame in frames for text in frame.text if len(text) > 20)
    assert "{" not in joined
