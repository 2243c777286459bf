import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, rate_bps
from airtune.scheduling.bandwidth import (
    best_snr_shares,
    bounded,
    equal_shares,
    longest_fitting,
    max_min_rate,
    min_max_delay,
)

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)


def ten_clients():
    rng = np.random.default_rng(0)
    return rng.uniform(4e6, 2e7, 10), 10 ** rng.uniform(6.3, 8.5, 10), rng.uniform(0.1, 1.0, 10)


@pytest.mark.parametrize("model", [PLAIN, SHANNON])
def test_optimum_agrees_with_a_general_solver(model):
    bits, snr_hz, start = ten_clients()
    _, finish = min_max_delay(bits, snr_hz, start, 20e6, model)

    # SLSQP over shares x (of 20 MHz) and the finish time t: minimise t with t >= every finish.
    def slack(x):
        return x[-1] - start - bits / rate_bps(x[:-1] * 20e6, snr_hz, model)

    first = np.append(np.full(10, 0.1), 1.0)
    first[-1] = (start + bits / rate_bps(np.full(10, 2e6), snr_hz, model)).max()
    found = minimize(
        lambda x: x[-1],
        first,
        method="SLSQP",
        bounds=[(1e-3, 1.0)] * 10 + [(0.0, None)],
        constraints=[
            {"type": "ineq", "fun": slack},
            {"type": "ineq", "fun": lambda x: 1.0 - x[:-1].sum()},
        ],
        options={"maxiter": 300, "ftol": 1e-10},
    )
    assert found.success
    assert finish.max() == pytest.approx(found.fun, rel=1e-5)


def test_all_finish_together_and_use_everything():
    bits, snr_hz, start = ten_clients()
    width, finish = min_max_delay(bits, snr_hz, start, 20e6, SHANNON)
    assert width.sum() == pytest.approx(20e6, rel=1e-12)
    assert np.ptp(finish) < 1e-9
    equal = start + bits / rate_bps(equal_shares(10, 20e6), snr_hz, SHANNON)
    assert finish.max() < 0.95 * equal.max()


def test_equal_clients_get_equal_shares():
    width, _ = min_max_delay(1e6, np.full(4, 1e8), 0.0, 8e6, PLAIN)
    assert width == pytest.approx(np.full(4, 2e6))


def test_a_client_held_back_by_power_leaves_the_rest_to_others():
    snr_hz = np.array([1e5, 1e9])
    width, finish = min_max_delay(1e6, snr_hz, 0.0, 20e6, PLAIN)
    fastest = float(rate_bps(np.inf, 1e5, PLAIN))
    assert finish[0] == pytest.approx(1e6 / fastest)
    assert finish[1] < finish[0]
    assert width.sum() == pytest.approx(20e6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1.0, 1e9), st.floats(1e5, 1e12), st.floats(0.0, 1e4)),
        min_size=1,
        max_size=6,
    ),
    st.floats(1e6, 1e8),
)
def test_never_worse_than_equal_and_within_the_band(clients, bandwidth_hz):
    bits, snr_hz, start = (np.array(column) for column in zip(*clients, strict=True))
    width, finish = min_max_delay(bits, snr_hz, start, bandwidth_hz, PLAIN)
    equal = start + bits / rate_bps(equal_shares(len(clients), bandwidth_hz), snr_hz, PLAIN)
    assert width.sum() <= bandwidth_hz * (1 + 1e-12)
    assert finish.max() <= equal.max() * (1 + 1e-9)


def bisected(bits, snr_hz, start, bandwidth_hz, model):
    """The shares by bisection alone, every step asked: what a shortcut must equal to the byte."""

    def shares(finish):
        return bandwidth_for_rate_hz(bits / np.maximum(finish - start, 1e-12), snr_hz, model)

    equal = equal_shares(snr_hz.size, bandwidth_hz)
    late = float(np.max(start + bits / rate_bps(equal, snr_hz, model)))
    early = float(np.max(start + bits / rate_bps(bandwidth_hz, snr_hz, model)))
    late = early if shares(early).sum() <= bandwidth_hz else late
    while late - early > 1e-12 * late:
        middle = 0.5 * (early + late)
        if not early < middle < late:
            break
        if shares(middle).sum() <= bandwidth_hz:
            late = middle
        else:
            early = middle
    width = shares(late) if np.isfinite(shares(late)).all() else equal
    return width * (bandwidth_hz / width.sum())


HARD = RateModel(gap_db=20.0, max_efficiency=100.0, min_snr_db=-30.0)  # inverts least exactly
CAPPED = RateModel(max_efficiency=0.2, min_snr_db=10.0)


@pytest.mark.parametrize("model", [PLAIN, SHANNON, HARD, CAPPED])
def test_the_shortcut_changes_no_byte(model):
    rng = np.random.default_rng(1)
    for _ in range(60):
        n = int(rng.choice([1, 2, 7, 40, 200]))
        bits = 10 ** rng.uniform(0, 9, n) if rng.random() < 0.3 else rng.uniform(4e6, 2e7, n)
        bits = np.maximum(bits, 1.0)
        snr_hz = 10 ** rng.uniform(*((4, 10) if rng.random() < 0.5 else (6.3, 8.5)), n)
        start = rng.choice([0.0, 1.0, 1e4]) * rng.random(n)
        bandwidth_hz = n * 10 ** rng.uniform(3, 8)
        width, _ = min_max_delay(bits, snr_hz, start, bandwidth_hz, model)
        expected = bisected(bits, snr_hz, start, bandwidth_hz, model)
        assert width.tobytes() == expected.tobytes()


def test_the_shortcut_asks_a_quarter_as_often(monkeypatch):
    from airtune.scheduling import bandwidth

    asked = []
    monkeypatch.setattr(
        bandwidth,
        "bandwidth_for_rate_hz",
        lambda *given: asked.append(1) or bandwidth_for_rate_hz(*given),
    )
    rng = np.random.default_rng(0)
    bits, snr_hz = rng.uniform(4e6, 2e7, 1000), 10 ** rng.uniform(6.3, 8.5, 1000)
    min_max_delay(bits, snr_hz, rng.uniform(0.1, 1.0, 1000), 2e7, PLAIN)
    assert len(asked) <= 12  # bisection alone asks 43 times


def test_the_slowest_rate_cannot_be_raised():
    _, snr_hz, _ = ten_clients()
    share = max_min_rate(snr_hz, 20e6, SHANNON)
    rate = rate_bps(share, snr_hz, SHANNON)
    assert share.sum() == pytest.approx(20e6)
    assert np.ptp(rate) < 1e-9 * rate.mean()
    # Spectrum moved from anybody to anybody slows the giver below what all had.
    for giver in range(10):
        moved = share.copy()
        moved[giver] *= 0.999
        assert rate_bps(moved, snr_hz, SHANNON).min() < rate.min()
    random = 20e6 * np.random.default_rng(0).dirichlet(np.ones(10), 20_000)
    assert (rate_bps(random, snr_hz, SHANNON).min(1) <= rate.min() * (1 + 1e-9)).all()


@pytest.mark.parametrize("model", [PLAIN, SHANNON, HARD, CAPPED])
@pytest.mark.parametrize("bandwidth_hz", [1e5, 20e6, 1e9])
def test_shares_by_snr_have_the_largest_sum_of_rates(model, bandwidth_hz):
    _, snr_hz, _ = ten_clients()
    share = best_snr_shares(snr_hz, bandwidth_hz)
    assert share.sum() == pytest.approx(bandwidth_hz)
    best = rate_bps(share, snr_hz, model).sum()
    rng = np.random.default_rng(0)
    near = share * np.exp(rng.normal(0, rng.uniform(0.01, 1, (5000, 1)), (5000, 10)))
    random = np.concatenate([near, rng.dirichlet(np.full(10, 0.5), 5000)])
    random *= bandwidth_hz / random.sum(1, keepdims=True)
    assert (rate_bps(random, snr_hz, model).sum(1) <= best * (1 + 1e-9)).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(1e3, 1e9), st.floats(1e4, 1e12), st.floats(1.0, 10.0), st.sampled_from(range(4)))
def test_rates_rise_with_bandwidth_and_with_power(bandwidth_hz, snr_hz, more, which):
    model = (PLAIN, SHANNON, HARD, CAPPED)[which]
    rate = float(rate_bps(bandwidth_hz, snr_hz, model))
    assert rate_bps(more * bandwidth_hz, snr_hz, model) >= rate * (1 - 1e-12)
    assert rate_bps(bandwidth_hz, more * snr_hz, model) >= rate * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_bounded_shares_fill_the_band_within_their_bounds(seed):
    rng = np.random.default_rng(seed)
    share, least = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8)) * rng.uniform(0.2, 0.9)
    most = least + rng.dirichlet(np.ones(8)) * rng.uniform(1.2, 4.0)
    found = bounded(share, least, most, 1.0)
    assert found.sum() == pytest.approx(1.0, rel=1e-12)
    assert ((found >= least) & (found <= most)).all()
    between = (found > least) & (found < most)
    c = (found / share)[between]
    assert c == pytest.approx(np.full(c.size, c.mean()))
    assert (least[~between] >= c.mean() * share[~between] * (1 - 1e-9))[
        found[~between] == least[~between]
    ].all()
    assert (bounded(share, least, most, least.sum()) == least).all()
    assert (bounded(share, least, most, 10.0) == most).all()
    assert bounded(share, 0.5 * share, 2.0 * share, 1.0) is share


@pytest.mark.parametrize("seed", range(5))
def test_bounded_shares_by_snr_have_the_largest_sum_of_rates_within_the_bounds(seed):
    rng = np.random.default_rng(seed)
    snr_hz, least = 20e6 * 10 ** rng.uniform(0, 2, 4), 20e6 * rng.dirichlet(np.ones(4)) * 0.7
    most = least + 4e6
    share = bounded(best_snr_shares(snr_hz, 20e6), least, most, 20e6)
    found = minimize(
        lambda x: -rate_bps(x * 20e6, snr_hz, SHANNON).sum() / 1e8,
        least / 20e6 + 0.075,
        method="SLSQP",
        bounds=[(each / 20e6, each / 20e6 + 0.2) for each in least],
        constraints=[{"type": "eq", "fun": lambda x: 1.0 - x.sum()}],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert (share == least).any()
    assert rate_bps(share, snr_hz, SHANNON).sum() >= -1e8 * found.fun * (1 - 1e-7)


def test_those_who_need_least_fit_in_the_largest_number():
    rng = np.random.default_rng(0)
    for _ in range(50):
        needed = rng.exponential(size=7)
        fits = longest_fitting(needed, 2.0)
        sets = itertools.chain.from_iterable(itertools.combinations(needed, n) for n in range(8))
        assert fits.sum() == max(len(some) for some in sets if sum(some) <= 2.0)
        assert needed[fits].sum() <= 2.0
    assert longest_fitting(np.array([2, 1, 2, 1]), 4).tolist() == [True, True, False, True]
