"""The range coder against entropies that are counted here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from airtune.wire import WireError
from airtune.wire.entropy import Counts, Reader, Writer


def made_up(seed, calls, contexts, symbols, most=60):
    """A prior, and calls of (symbols, contexts): in each context some symbols are frequent."""
    rng = np.random.default_rng(seed)
    prior = rng.choice([0.25, 0.5, 1.0, 4.0], size=(contexts, symbols))
    chances = rng.dirichlet(np.full(symbols, 0.3), size=contexts)
    made = []
    for _ in range(calls):
        given = rng.integers(0, contexts, size=rng.integers(0, most))
        drawn = [rng.choice(symbols, p=chances[context]) for context in given]
        made.append((np.array(drawn, dtype=np.int64), given))
    return prior, made


def counted_bits(prior, calls):
    """What the symbols cost if each call is told all that was in the calls before."""
    counts, bits = prior.astype(float).tolist(), 0.0
    for symbols, contexts in calls:
        for symbol, context in zip(symbols, contexts, strict=True):
            bits -= np.log2(counts[context][symbol] / sum(counts[context]))
        for symbol, context in zip(symbols, contexts, strict=True):
            counts[context][symbol] += 1
    return bits


def written(prior, calls):
    writer, model = Writer(), Counts(prior)
    for symbols, contexts in calls:
        writer.code(symbols, model, contexts)
    return writer.finish(), writer.model_bits


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 8), st.integers(1, 5), st.integers(2, 20))
def test_symbols_come_back_at_the_price_of_their_entropy(seed, count, contexts, symbols):
    prior, calls = made_up(seed, count, contexts, symbols)
    data, model_bits = written(prior, calls)
    expected = counted_bits(prior, calls)
    assert model_bits == pytest.approx(expected, rel=1e-9, abs=1e-9)
    # It may be less: the first symbol over and over is zeros, and those at the end go.
    assert len(data) <= 1.02 * expected / 8 + 8
    reader, model = Reader(data), Counts(prior)
    for sent, given_ in calls:
        assert reader.code(np.zeros_like(sent), model, given_).tolist() == sent.tolist()


def test_symbols_one_by_one_cost_the_dirichlet_multinomial():
    prior, calls = made_up(1, 1, 3, 6, most=2000)
    one_by_one = [(s[None], c[None]) for s, c in zip(*calls[0], strict=True)]
    data, model_bits = written(prior, one_by_one)
    seen = np.zeros_like(prior)
    np.add.at(seen, (calls[0][1], calls[0][0]), 1)
    nats = gammaln(prior).sum() - gammaln(prior + seen).sum()
    nats += (gammaln((prior + seen).sum(1)) - gammaln(prior.sum(1))).sum()
    assert model_bits == pytest.approx(nats / np.log(2), rel=1e-9)
    assert abs(8 * len(data) - model_bits) <= 0.02 * model_bits + 64


def test_a_model_becomes_cheaper_with_what_it_saw():
    repeated = [(np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64))] * 10
    _, once = written(np.full((1, 4), 0.5), repeated[:1])
    _, ten_times = written(np.full((1, 4), 0.5), repeated)
    assert once == pytest.approx(40.0)
    assert ten_times < 1.5 * once


def test_counts_are_kept_apart_from_the_prior_that_was_given():
    prior = np.full((2, 3), 0.5)
    model = Counts(prior)
    model.learn(np.array([1, 1, 0]), np.array([2, 2, 0]))
    assert prior.tolist() == [[0.5] * 3] * 2
    chances = model.probabilities(np.array([0, 1]))
    assert np.allclose(
        chances, [[1.5 / 2.5, 0.5 / 2.5, 0.5 / 2.5], [0.5 / 3.5, 0.5 / 3.5, 2.5 / 3.5]]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60000), st.integers(0, 200), st.integers(0, 10**6))
def test_even_symbols_cost_the_logarithm_of_their_number(size, count, seed):
    symbols = np.random.default_rng(seed).integers(0, size, count)
    writer = Writer()
    writer.code_evenly(symbols, size)
    data = writer.finish()
    assert writer.model_bits == pytest.approx(count * np.log2(size))
    assert abs(8 * len(data) - count * np.log2(size)) <= 64
    assert Reader(data).code_evenly(np.zeros(count), size).tolist() == symbols.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 300))
def test_even_and_modelled_symbols_may_alternate(seed, count, size):
    prior, calls = made_up(seed, count, 3, 5, most=12)
    rng = np.random.default_rng(seed)
    even = [rng.integers(0, size, rng.integers(0, 5)) for _ in calls]
    writer, model = Writer(), Counts(prior)
    for (symbols, contexts), evenly in zip(calls, even, strict=True):
        writer.code(symbols, model, contexts)
        writer.code_evenly(evenly, size)
    reader, model = Reader(writer.finish()), Counts(prior)
    for (symbols, contexts), evenly in zip(calls, even, strict=True):
        assert reader.code(symbols * 0, model, contexts).tolist() == symbols.tolist()
        assert reader.code_evenly(evenly * 0, size).tolist() == evenly.tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 5000])
@pytest.mark.parametrize("symbol", [0, 3])
def test_zeros_left_out_at_the_end_are_found_again(count, symbol):
    symbols, contexts = np.full(count, symbol), np.zeros(count, dtype=np.int64)
    data, _ = written(np.full((1, 4), 0.5), [(symbols, contexts)])
    assert not data.endswith(b"\0")
    read = Reader(data).code(symbols * 0, Counts(np.full((1, 4), 0.5)), contexts)
    assert read.tolist() == symbols.tolist()
    writer = Writer()
    writer.code_evenly(symbols, 4)
    assert Reader(writer.finish()).code_evenly(symbols * 0, 4).tolist() == symbols.tolist()


def test_nothing_takes_no_bytes():
    nothing = np.empty(0, dtype=np.int64)
    writer = Writer()
    writer.code(nothing, Counts(np.ones((1, 2))), nothing)
    writer.code_evenly(nothing, 9)
    writer.code_evenly(np.zeros(50, dtype=np.int64), 1)
    assert (writer.finish(), writer.model_bits) == (b"", 0.0)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 60), st.integers(2, 9))
def test_any_bytes_are_symbols_or_refused(data, count, symbols):
    contexts = np.zeros(count, dtype=np.int64)
    try:
        reader, model = Reader(data), Counts(np.full((1, symbols), 0.5))
        read = reader.code(contexts, model, contexts)
        even = reader.code_evenly(contexts, symbols)
    except WireError:
        return
    for each in (read, even):
        assert each.shape == (count,)
        assert each.min() >= 0
        assert each.max() < symbols
