"""Division of spectrum and power as convex programs, solved by cvxpy's interior-point method.

Where our code searches for one number (a finish time, a price, a level), a program has all shares
at once. With w of its b Hz in use and x = snr_hz / gap, a link carries R if

    R ln2 <= w ln(1 + x / w),   R <= cap w,   w <= b,   w <= snr_hz / snr_min

of which the first is a cone (relative entropy) and the others are linear. Numbers are in MHz, Mbit
and seconds; Clarabel's default tolerance is 1e-8 of the objective, ours 1e-6.
"""

import numpy as np
import pytest

from airtune.radio.rate import RateModel, rate_bps
from airtune.scheduling.bandwidth import best_snr_shares, max_min_rate, min_max_delay
from airtune.scheduling.matching import least_sum_matching
from airtune.scheduling.power import least_energy_w, least_power_w, water_filling
from airtune.scheduling.tsfa import Band, priced_shares

cp = pytest.importorskip("cvxpy", reason="cvxpy is not installed: pip install 'airtune[oracles]'")

BAND = 20.0  # MHz
CLIENTS = 8
MODELS = {
    "default": RateModel(),
    "shannon": RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0),
    "low cap": RateModel(max_efficiency=1.5, min_snr_db=0.0),
}
CASES = [(name, seed) for name in MODELS for seed in range(3)]


def drawn(seed):
    """Return payloads in Mbit, SNR in MHz and computing seconds of some clients."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(1.0, 20.0, CLIENTS),
        10 ** rng.uniform(0.0, 2.5, CLIENTS),
        rng.uniform(0.1, 1.0, CLIENTS),
    )


def carries(rate, width, snr, model):
    """Return the constraints under which links of ``snr`` MHz carry ``rate`` over ``width``."""
    used = cp.Variable(rate.shape)
    x = snr / 10 ** (model.gap_db / 10)
    return [
        rate * np.log(2) <= -cp.rel_entr(used, used + x),
        rate <= model.max_efficiency * used,
        used <= width,
        used <= snr / 10 ** (model.min_snr_db / 10),
    ]


def program(snr, model, objective):
    """Return the optimum of ``objective`` of the rates when the band is divided."""
    rate, width = cp.Variable(snr.size), cp.Variable(snr.size)
    goal = objective(rate)
    divided = [*carries(rate, width, snr, model), cp.sum(width) <= BAND]
    return cp.Problem(goal, divided).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("name, seed", CASES)
def test_the_last_finishes_as_early_as_in_the_program(name, seed):
    bits, snr, start = drawn(seed)
    solved = program(
        snr, MODELS[name],
        lambda rate: cp.Minimize(cp.max(start + cp.multiply(bits, cp.inv_pos(rate)))),
    )  # fmt: skip
    share, finish = min_max_delay(bits * 1e6, snr * 1e6, start, BAND * 1e6, MODELS[name])
    assert share.sum() == pytest.approx(BAND * 1e6)
    assert finish.max() == pytest.approx(solved, rel=1e-6)


@pytest.mark.parametrize("name, seed", CASES)
def test_the_slowest_rate_is_the_program_s(name, seed):
    _, snr, _ = drawn(seed)
    solved = program(snr, MODELS[name], lambda rate: cp.Maximize(cp.min(rate)))
    share = max_min_rate(snr * 1e6, BAND * 1e6, MODELS[name])
    slowest = rate_bps(share, snr * 1e6, MODELS[name]).min()
    assert slowest == pytest.approx(solved * 1e6, rel=1e-6)


@pytest.mark.parametrize("name, seed", CASES)
def test_the_sum_of_rates_is_the_program_s(name, seed):
    _, snr, _ = drawn(seed)
    solved = program(snr, MODELS[name], lambda rate: cp.Maximize(cp.sum(rate)))
    share = best_snr_shares(snr * 1e6, BAND * 1e6)
    total = rate_bps(share, snr * 1e6, MODELS[name]).sum()
    assert total == pytest.approx(solved * 1e6, rel=1e-6)


@pytest.mark.parametrize("name, seed", CASES)
def test_the_weighted_sum_of_delays_is_the_program_s(name, seed):
    load, snr, _ = drawn(seed)
    solved = program(
        snr, MODELS[name], lambda rate: cp.Minimize(load @ cp.inv_pos(rate))
    )  # fmt: skip
    band = Band(BAND * 1e6, snr * 1e6, MODELS[name])
    total = (load * 1e6 / band.rate(priced_shares(load * 1e6, band))).sum()
    assert total == pytest.approx(solved, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_water_reaches_the_program_s_sum(seed):
    rng = np.random.default_rng(seed)
    gains, power = 10 ** rng.uniform(-2, 2, 12), rng.uniform(0.1, 5.0)
    poured = cp.Variable(12, nonneg=True)
    goal = cp.Maximize(cp.sum(cp.log1p(cp.multiply(gains, poured))))
    solved = cp.Problem(goal, [cp.sum(poured) <= power]).solve(solver=cp.CLARABEL)
    found = water_filling(gains, power)
    assert np.log1p(gains * found).sum() == pytest.approx(solved, rel=1e-6)
    assert found == pytest.approx(poured.value, abs=1e-3 * power)


def joules(bits, width, snr, circuit_w, model, deadline_s):
    """Return the least energy of sending so many Mbit, of a program in energy, time and hertz.

    Energy E = p t and used hertz times seconds, a = w t, make ``(p + p_c) t`` linear and the rate
    times the time a perspective: convex, where energy per bit over power is not.
    """
    energy, seconds, used = (cp.Variable(nonneg=True) for _ in range(3))
    reached = energy * (snr / POWER_W)  # of SNR in MHz at full power
    gap, densest = 10 ** (model.gap_db / 10), 10 ** (model.min_snr_db / 10)
    kept = [
        bits * np.log(2) <= -cp.rel_entr(used, used + reached / gap),
        bits <= model.max_efficiency * used,
        used <= width * seconds,
        used * densest <= reached,
        energy <= POWER_W * seconds,
        seconds <= deadline_s,
    ]
    goal = cp.Minimize(energy + circuit_w * seconds)
    return cp.Problem(goal, kept).solve(solver=cp.CLARABEL)


POWER_W = 0.2


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("circuit_w", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("hurry", [0.02, 0.6, 0.95])
def test_no_power_and_no_pause_cost_less_energy(name, circuit_w, hurry):
    model, width = MODELS[name], 1.0
    for snr in (3.0, 20.0, 150.0):
        full = float(rate_bps(width * 1e6, snr * 1e6, model)) / 1e6
        deadline = 1.0
        bits = hurry * full * deadline
        # Under a deadline the larger of both powers (power.py).
        hz, snr_hz = np.array([width * 1e6]), np.array([snr * 1e6])
        least = least_power_w(bits * 1e6 / deadline, hz, snr_hz, POWER_W, model)
        power = np.maximum(least, least_energy_w(hz, snr_hz, POWER_W, circuit_w, model))
        rate = rate_bps(hz, snr_hz * power / POWER_W, model)
        ours = float(((power + circuit_w) * bits * 1e6 / rate)[0])
        solved = joules(bits, width, snr, circuit_w, model, deadline)
        assert ours == pytest.approx(solved, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_assignment_is_the_linear_program_s(seed):
    # Corners of the doubly stochastic matrices are permutations, so fractions gain nothing.
    costs = np.random.default_rng(seed).exponential(1.0, (9, 12))
    part = cp.Variable((9, 12), nonneg=True)
    kept = [cp.sum(part, axis=1) == 1, cp.sum(part, axis=0) <= 1]
    goal = cp.Minimize(cp.sum(cp.multiply(costs, part)))
    solved = cp.Problem(goal, kept).solve(solver=cp.CLARABEL)
    found = least_sum_matching(costs)
    assert costs[np.arange(9), found].sum() == pytest.approx(solved, rel=1e-6)
