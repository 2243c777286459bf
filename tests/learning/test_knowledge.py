"""What is kept of a model's logits, against its dense logits text by text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning import prediction
from airtune.learning.data.examples import IGNORED, pack
from airtune.learning.knowledge import (
    Knowledge,
    Positions,
    floored,
    gather,
    limited,
    remembering,
)
from airtune.learning.projections import Taps

TASKS = ["classification", "causal"]


@pytest.fixture
def made(small):
    """Function that returns an experiment's parts, its 12 public texts and an adapter."""

    def make(task):
        values = small(task, method={"name": "fedmd"})
        values["data"]["public_rows"] = 12
        parts = build(Experiment(**values))
        rng = torch.Generator().manual_seed(5)
        adapter = {
            name: value + 0.2 * torch.randn(value.shape, generator=rng)
            for name, value in parts.model.initial.items()
        }
        return parts, parts.method.setup.public, adapter

    return make


def dense(parts, public, adapter):
    """[positions, width] in float64: each text alone, without any padding."""
    parts.model.slots.load([adapter])
    rows = []
    for text in range(len(public)):
        length = int(public.corpus.lengths[text])
        batch = public.corpus.batch(np.array([text]), length)
        with torch.inference_mode():
            logits = parts.model.logits(batch)[0].double().numpy()
        if logits.ndim == 1:
            rows.append(logits)
            continue
        labels = batch["labels"][0].tolist()
        rows += [logits[t] for t in range(length - 1) if labels[t + 1] != IGNORED]
    return np.stack(rows)


def in_form(logits, form):
    if form == "centred":
        return logits - logits.mean(1, keepdims=True)
    if form == "log-probabilities":
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return logits


def by_labels(corpus):
    """(place, text) of each prediction, by a look at every label of every text's batch."""
    found = []
    for text in range(len(corpus.lengths)):
        length = int(corpus.lengths[text]) + 3
        labels = corpus.batch(np.array([text]), length)["labels"][0].tolist()
        found += [
            (int(corpus.offsets[text]) + t, text)
            for t in range(length - 1)
            if labels[t + 1] != IGNORED
        ]
    return found


def tokens(starts=(1, 2, 0, 1, 4, 6), lengths=(3, 5, 4, 1, 4, 7)):
    """A causal corpus with texts of no prompt, of one token, and without a response."""
    sequences = [[10 * i + t for t in range(n)] for i, n in enumerate(lengths)]
    return pack(sequences, np.array(starts), "causal", 0, 64)


def test_a_causal_model_predicts_before_each_token_that_it_learns(made):
    for examples in (made("causal")[1], tokens()):
        positions, expected = Positions(examples), by_labels(examples.corpus)
        assert len(positions) == len(expected) > 0
        assert (
            list(zip(positions.places.tolist(), positions.text.tolist(), strict=True)) == expected
        )
        assert examples.corpus.predicted().tolist() == [place for place, _ in expected]


def test_places_by_hand():
    # Starts 1, 2, 0 in texts of 3, 5 and 4 tokens; then one token, no response, a last token.
    positions = Positions(tokens())
    assert positions.places.tolist() == [0, 1, 4, 5, 6, 8, 9, 10, 22]
    assert positions.text.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 5]
    assert positions.about(torch.tensor([5, 3, 0])).tolist() == [0, 1, 8]
    assert positions.about(torch.tensor([3, 4])).tolist() == []
    assert positions.within(torch.tensor([1, 2])) == 6
    assert positions.within(None) == 9


def test_a_classifier_predicts_once_of_each_text():
    data = pack([[1, 2], [3], [4] * 9], np.zeros(3, dtype=int), "classification", 0, 64)
    positions = Positions(data)
    assert len(positions) == positions.within(None) == 3
    assert positions.about(torch.tensor([2, 0])).tolist() == [0, 2]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", ["logits", "centred", "log-probabilities"])
def test_what_is_gathered_is_the_top_of_the_dense_logits(made, task, form):
    parts, public, adapter = made(task)
    positions, width, k = Positions(public), parts.model.width, 5
    known = gather(parts.learner.predict(adapter, public), positions, width, k, form)
    expected = in_form(dense(parts, public, adapter), form)
    assert expected.shape == (len(positions), width)
    assert known.values.shape == known.index.shape == (len(positions), k)
    assert (known.width, known.rest, known.projections) == (width, None, None)
    values, index = known.values.numpy(), known.index.numpy()
    np.testing.assert_allclose(values, -np.sort(-expected, 1)[:, :k], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, index, 1), values, atol=1e-4)
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("task", TASKS)
def test_more_entries_than_there_are_give_all_and_texts_not_asked_for_none(made, task):
    parts, public, adapter = made(task)
    positions, width = Positions(public), parts.model.width
    some = public.select(np.array([7, 2, 3]))
    known = gather(parts.learner.predict(adapter, some), positions, width, width + 9)
    assert known.values.shape == (len(positions), width)
    there = positions.about(torch.tensor([2, 3, 7]))
    silent = np.setdiff1d(np.arange(len(positions)), there)
    expected = in_form(dense(parts, public, adapter), "centred")[there]
    whole = torch.zeros(len(there), width).scatter_(1, known.index[there], known.values[there])
    np.testing.assert_allclose(whole, expected, atol=1e-4)
    assert (known.values[silent] == -torch.inf).all()
    assert (known.index[silent] == 0).all()


@pytest.mark.parametrize("task", TASKS)
def test_entries_may_be_drawn_at_random(made, task):
    parts, public, adapter = made(task)
    positions, width, k = Positions(public), parts.model.width, 3

    def drawn(seed):
        seen = parts.learner.predict(adapter, public)
        draw = torch.Generator().manual_seed(seed)
        return gather(seen, positions, width, k, "centred", draw)

    one, again, other = drawn(0), drawn(0), drawn(1)
    expected = in_form(dense(parts, public, adapter), "centred")
    for known in (one, other):
        index = known.index.numpy()
        assert all(len(set(row)) == k for row in index.tolist())
        np.testing.assert_allclose(np.take_along_axis(expected, index, 1), known.values, atol=1e-4)
        assert (known.values.diff(dim=1) <= 0).all()
    assert torch.equal(one.index, again.index)
    assert not torch.equal(one.index, other.index)
    best = -np.sort(-expected, 1)[:, :k]
    assert not np.allclose(one.values, best, atol=1e-3), "these are not the largest"


def test_drawn_entries_favour_none():
    class Flat:
        rows, projections = np.arange(4000), None
        logits = torch.arange(6.0).expand(4000, 6)

    data = pack([[1]] * 4000, np.zeros(4000, dtype=int), "classification", 0, 64)
    known = gather([Flat], Positions(data), 6, 2, draw=torch.Generator().manual_seed(0))
    counts = torch.bincount(known.index.flatten(), minlength=6)
    # 4000 draws with chance 1/3 have a standard deviation of 30.
    assert (counts - 4000 / 3).abs().max() < 130


def test_projections_lie_at_their_texts(made):
    parts, public, adapter = made("causal")
    some, taps = public.select(np.array([9, 0, 4])), Taps("all", "last")
    seen = list(parts.learner.predict(adapter, some, taps))
    known = gather(seen, Positions(public), parts.model.width, 1)
    assert known.projections.shape == (12, 2, 4)
    assert known.projections.isnan().all((1, 2)).nonzero().flatten().tolist() == [
        text for text in range(12) if text not in (0, 4, 9)
    ]
    for text in (0, 4, 9):
        batch = public.corpus.batch(np.array([text]), int(public.corpus.lengths[text]))
        with torch.inference_mode():
            own = parts.model.tapped_logits(batch, taps)[1][0]
        assert torch.allclose(known.projections[text], own, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_every_text_is_predicted_once_beside_what_it_belongs_to(made, task):
    parts, public, adapter = made(task)
    asked = public.select(np.array([11, 3, 8, 0]))
    seen = list(parts.learner.predict(adapter, asked))
    positions = np.concatenate([each.positions for each in seen])
    assert sorted(positions) == [0, 1, 2, 3]
    for each in seen:
        assert (asked.rows[each.positions] == each.rows).all()
        for row, ids in zip(each.rows, each.batch["input_ids"], strict=True):
            own = public.corpus.tokens[public.corpus.offsets[row] : public.corpus.offsets[row + 1]]
            assert ids[: len(own)].tolist() == own.tolist()


@pytest.mark.parametrize("rows", [2, 4])
def test_a_pass_never_holds_more_logits_than_its_bound(made, rows, monkeypatch):

    parts, public, adapter = made("causal")
    longest, width = int(public.lengths().max()), parts.model.width
    assert longest % 8, "the longest text must be padded for this test to say anything"
    bound = rows * longest * width * 4
    monkeypatch.setattr(prediction, "_LOGIT_BYTES", float(bound))
    seen = list(parts.learner.predict(adapter, public))
    assert sum(len(each.rows) for each in seen) == 12
    assert max(len(each.rows) for each in seen) <= rows
    assert max(each.logits.nbytes for each in seen) <= bound


def test_the_rows_of_a_pass_fall_with_the_vocabulary_and_the_length(made, monkeypatch):
    parts, _, _ = made("causal")
    data = tokens(starts=[0] * 200, lengths=[8] * 200)
    sizes = {}
    for width in (400, 150_000, 1_500_000, 50_000_000):
        monkeypatch.setattr(type(parts.model), "width", width)
        sizes[width] = prediction.rows_of_a_pass(parts.model, data)
        assert sizes[width] == 1 or sizes[width] * 8 * width * 4 <= 256e6
    assert sizes[400] >= sizes[150_000] > sizes[1_500_000] > sizes[50_000_000] == 1
    monkeypatch.setattr(type(parts.model), "width", 150_000)
    longer = tokens(starts=[0] * 200, lengths=[64] * 200)
    assert prediction.rows_of_a_pass(parts.model, longer) * 64 * 150_000 * 4 <= 256e6
    assert prediction.rows_of_a_pass(parts.model, longer) < sizes[150_000]


def numbered(count, k=2, **further):
    """Knowledge whose every number says where it belongs."""
    values = torch.arange(count * k, dtype=torch.float32).view(count, k).flip(1)
    return Knowledge(values, torch.arange(count * k).view(count, k) + 100, 999, **further)


def test_a_text_is_taught_what_is_known_of_it():
    data = pack([[1] * n for n in (2, 9, 4, 1)], np.arange(4), "classification", 0, 64)
    projections = torch.arange(24.0).view(4, 2, 3)
    known = numbered(4, rest=torch.tensor([0.5, 1.5, 2.5, 3.5]), projections=projections)
    taught = Positions(data).teach(known)
    rows = np.array([2, 0, 3])
    batch = taught.corpus.batch(rows, 16)
    assert torch.equal(batch["teacher_values"], known.values[rows])
    assert torch.equal(batch["teacher_index"], known.index[rows])
    assert batch["teacher_rest"].tolist() == [2.5, 0.5, 3.5]
    assert torch.equal(batch["teacher_projections"], projections[rows])
    assert batch["labels"].tolist() == [2, 0, 3]
    assert data.corpus.columns == {}, "the examples that were given stay as they were"
    assert set(Positions(data).teach(numbered(4)).corpus.batch(rows, 8)) == {
        "input_ids", "attention_mask", "labels", "teacher_values", "teacher_index",
    }  # fmt: skip


def test_a_token_is_taught_what_is_known_of_the_one_behind_it():
    data = tokens()
    places = [place for place, _ in by_labels(data.corpus)]
    count = len(places)
    projections = torch.arange(36.0).view(6, 2, 3)
    known = numbered(count, rest=torch.arange(count) + 0.5, projections=projections)
    taught = Positions(data).teach(known)
    rows = np.array([5, 0, 3, 1, 4])
    batch = taught.corpus.batch(rows, 16)
    assert batch["teacher_values"].shape == batch["teacher_index"].shape == (5, 16, 2)
    taught_places = 0
    for row, text in enumerate(rows):
        for t in range(16):
            place = int(data.corpus.offsets[text]) + t
            inside = t < data.corpus.lengths[text]
            given = {n: batch[f"teacher_{n}"][row, t] for n in ("values", "index", "rest")}
            if inside and place in places:
                at = places.index(place)
                assert torch.equal(given["values"], known.values[at])
                assert torch.equal(given["index"], known.index[at])
                assert given["rest"] == at + 0.5
                assert batch["labels"][row, t + 1] == data.corpus.tokens[place + 1]
                taught_places += 1
            else:
                assert (given["values"] == -torch.inf).all(), "nothing, also behind the end"
    assert taught_places == 6
    assert torch.equal(batch["teacher_projections"], projections[rows])


def test_columns_follow_their_examples_into_chosen_batches():
    taught = Positions(tokens()).teach(numbered(9))
    chosen = taught.select(np.array([2, 5]))
    assert torch.equal(
        chosen.batch(np.array([1, 0]))["teacher_values"][0, 5], torch.tensor([17.0, 16.0])
    )
    assert chosen.batch(np.array([0]))["teacher_values"][0, 0].tolist() == [11.0, 10.0]


NONE = -torch.inf


def test_limited_keeps_the_largest_entries():
    known = numbered(3, 4, rest=torch.zeros(3))
    two = limited(known, 2)
    assert two.values.tolist() == [[3, 2], [7, 6], [11, 10]]
    assert two.index.tolist() == [[100, 101], [104, 105], [108, 109]]
    assert two.width == 999
    assert torch.equal(two.rest, known.rest)
    for k in (None, 4, 9):
        assert limited(known, k) is known


def test_floored_lies_below_the_least_entry_of_each_position():
    values = torch.tensor([[3.0, 1.0, -2.0], [5.0, NONE, NONE], [NONE, NONE, NONE]])
    known = floored(Knowledge(values, torch.zeros(3, 3).long(), 9), 2.0)
    assert known.rest[:2].tolist() == [-4.0, 3.0]
    assert torch.isfinite(known.rest).all()
    assert torch.equal(known.values, values)


@pytest.mark.parametrize("wider", ["now", "before"])
def test_remembering_falls_back_where_nothing_is_said(wider):
    values = torch.tensor([[3.0, 1.0], [NONE, NONE], [4.0, NONE], [NONE, NONE]])
    index = torch.tensor([[5, 6], [0, 0], [7, 0], [0, 0]])
    old = {
        "values": torch.tensor([[9.0, 8.0, 7.0], [6.0, 5.0, NONE], [2.0, 1.0, 0.0], [NONE] * 3]),
        "index": torch.tensor([[1, 2, 3], [4, 5, 0], [1, 3, 2], [0, 0, 0]]),
    }
    if wider == "now":
        old = {name: column[:, :1] for name, column in old.items()}
    known = remembering(Knowledge(values, index, 9), old)
    k = 2 if wider == "now" else 3
    expected = [[3, 1, NONE], [6, 5, NONE], [4, NONE, NONE], [NONE] * 3]
    places = [[5, 6, 0], [4, 5, 0], [7, 0, 0], [0, 0, 0]]
    if wider == "now":
        expected[1], places[1] = [6, NONE, NONE], [4, 0, 0]
    assert known.values.tolist() == [row[:k] for row in expected]
    assert known.index.tolist() == [row[:k] for row in places]
    first = Knowledge(values, index, 9)
    assert remembering(first, None) is first


def test_more_entries_than_memory_holds_are_refused():
    class Many:
        def __len__(self):
            return 30_000

    with pytest.raises(UserError, match="30000 predictions of 150000 entries"):
        gather([], Many(), 150_000, 150_000)
