"""Powers against root finding, a search over energies, SciPy, and random draws."""

import numpy as np
import pytest
from scipy import optimize

from airtune.radio.rate import RateModel, rate_bps, snr_for_rate_hz
from airtune.scheduling.power import least_energy_w, least_power_w, water_filling

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)
LOW_CAP = RateModel(max_efficiency=0.2, min_snr_db=10.0)
MODELS = [PLAIN, SHANNON, LOW_CAP]


def drawn(seed, count=200):
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(4, 7, count), 10 ** rng.uniform(4, 10, count)


# ---- the inverse of the rate in power


def test_by_hand():
    # 2 bit/s/Hz over 1 MHz without gap: SNR 3. A gap of 3.0103 dB doubles it.
    assert snr_for_rate_hz(1e6, 2e6, SHANNON) == pytest.approx(3e6)
    double = RateModel(gap_db=10 * np.log10(2), max_efficiency=100.0)
    assert snr_for_rate_hz(1e6, 2e6, double) == pytest.approx(6e6)
    # 0.01 bit/s/Hz lies below -5 dB: the band is filled in part only, in proportion to the rate.
    thin = snr_for_rate_hz(1e6, np.array([1e4, 2e4]), PLAIN)
    assert thin[1] == pytest.approx(2 * thin[0])
    assert snr_for_rate_hz(1e6, 5.56e6, PLAIN) == np.inf


@pytest.mark.parametrize("model", MODELS)
def test_rate_to_power_and_back(model):
    width, snr_hz = drawn(0)
    rate = rate_bps(width, snr_hz, model)
    needed = snr_for_rate_hz(width, rate, model)
    assert rate_bps(width, needed, model) == pytest.approx(rate, rel=1e-12)
    assert (needed <= snr_hz * (1 + 1e-12)).all()  # less where the cap leaves power over
    assert (rate_bps(width, 0.999 * needed, model) < rate).all()


# ---- the least power


@pytest.mark.parametrize("model", MODELS)
def test_least_power_agrees_with_root_finding(model):
    width, snr_hz = drawn(1, 60)
    rate = rate_bps(width, snr_hz, model) * np.random.default_rng(1).uniform(0.3, 1.0, 60)
    found = least_power_w(rate, width, snr_hz, 0.2, model)
    floor = 0.2 * 10 ** (model.min_snr_db / 10) * model.resource_block_hz / snr_hz
    for n in range(60):

        def short(x, n=n):
            return float(rate_bps(width[n], snr_hz[n] * np.exp(x), model)) - rate[n]

        low = -40.0
        root = np.exp(optimize.brentq(short, low, 0.0, xtol=1e-13)) if short(0.0) > 0 else 1.0
        expected = max(0.2 * root, floor[n])
        if expected <= 0.2:
            assert found[n] == pytest.approx(expected, rel=1e-6)
        else:
            assert found[n] == np.inf


def test_what_full_power_does_not_carry_has_no_power():
    width, snr_hz = np.full(3, 1e6), np.array([1e6, 1e7, 1e8])
    rate = rate_bps(width, snr_hz, PLAIN)
    assert least_power_w(1.001 * rate, width, snr_hz, 0.2, PLAIN).tolist() == [np.inf] * 3
    full = least_power_w(rate[:2], width[:2], snr_hz[:2], 0.2, PLAIN)
    assert full == pytest.approx([0.2, 0.2])
    assert (full <= 0.2).all()


# ---- the least energy


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("circuit_w", [0.01, 0.1, 1.0])
def test_no_power_on_a_grid_costs_less_energy(model, circuit_w):
    width, snr_hz = drawn(2)
    found = least_energy_w(width, snr_hz, 0.2, circuit_w, model)
    assert ((found > 0) & (found <= 0.2)).all()

    def joules(power):
        return (power + circuit_w) / rate_bps(width, snr_hz * power / 0.2, model)

    best = joules(found)
    for power in 0.2 * np.geomspace(1e-7, 1.0, 2000):
        assert (joules(power) >= best * (1 - 1e-9)).all()


def test_under_a_deadline_the_larger_of_both_costs_least():
    width, snr_hz = drawn(3)
    bits, left = 0.4 * rate_bps(width, snr_hz, PLAIN), 1.0
    least = least_power_w(bits / left, width, snr_hz, 0.2, PLAIN)
    power = np.maximum(least, least_energy_w(width, snr_hz, 0.2, 0.1, PLAIN))
    kept = np.isfinite(least)
    assert kept.sum() > 100 and (power[kept] <= 0.2).all()

    def seconds(power):
        return bits / rate_bps(width, snr_hz * power / 0.2, PLAIN)

    best = (power + 0.1) * seconds(power)
    for each in 0.2 * np.geomspace(1e-4, 1.0, 1000):
        in_time = kept & (seconds(each) <= left)
        assert ((each + 0.1) * seconds(each) >= best * (1 - 1e-9))[in_time].all()


def test_without_circuit_power_less_is_not_cheaper_below_the_least_snr():
    width, snr_hz = np.full(2, 1e6), np.array([1e8, 1e9])
    found = least_energy_w(width, snr_hz, 0.2, 0.0, PLAIN)
    assert snr_hz * found / 0.2 / width == pytest.approx(10**-0.5)  # -5 dB


# ---- water filling


def test_water_by_hand():
    # Floors 1, 2, 10: a level of 3 holds 2 + 1, the third stays dry.
    assert water_filling(np.array([1.0, 0.5, 0.1]), 3.0) == pytest.approx([2.0, 1.0, 0.0])
    assert water_filling(np.array([0.0, 0.5]), 3.0) == pytest.approx([0.0, 3.0])
    with pytest.raises(ValueError, match="at least one sub-channel"):
        water_filling(np.zeros((2, 3)), 1.0)


def test_water_agrees_with_scipy():
    rng = np.random.default_rng(0)
    gains, power = 10 ** rng.uniform(-2, 2, (6, 5)), rng.uniform(0.05, 5.0, 6)
    found = water_filling(gains, power)
    for row in range(6):
        solved = optimize.minimize(
            lambda p, row=row: -np.log1p(p * gains[row]).sum(),
            np.full(5, power[row] / 5),
            method="SLSQP",
            bounds=[(0.0, power[row])] * 5,
            constraints={"type": "ineq", "fun": lambda p, row=row: power[row] - p.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        ours = np.log1p(found[row] * gains[row]).sum()
        assert ours == pytest.approx(-solved.fun, rel=1e-7) and ours >= -solved.fun * (1 - 1e-12)


def test_water_never_exceeds_the_power_and_has_one_level():
    rng = np.random.default_rng(1)
    gains, power = 10 ** rng.uniform(-30, 12, (3000, 16)), 10 ** rng.uniform(-6, 3, 3000)
    found = water_filling(gains, power)
    assert (found >= 0).all()
    assert found.sum(1) == pytest.approx(power, rel=1e-9)
    best = np.take_along_axis(found, gains.argmax(1)[:, None], 1)
    assert (found <= best * (1 + 1e-12)).all()


@pytest.mark.parametrize("model", MODELS)
def test_power_never_exceeds_the_clients(model):
    width, snr_hz = drawn(4, 5000)
    rate = rate_bps(width, snr_hz, model) * np.random.default_rng(4).uniform(0, 2, 5000)
    least = least_power_w(rate, width, snr_hz, 0.2, model)
    assert (least[np.isfinite(least)] <= 0.2).all() and (least > 0).all()
    assert (least_energy_w(width, snr_hz, 0.2, 0.1, model) <= 0.2).all()
