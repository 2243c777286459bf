import numpy as np
import pytest

from airtune.radio.fading import (
    doppler_hz,
    jakes_correlation,
    power_quantiles,
    scattered,
    shadowing_db,
    step,
    with_specular,
)


@pytest.mark.parametrize(
    "speed_kmh, interval_s, rho",
    [
        (1, 0.001, 0.9999),
        (3, 0.001, 0.9991),
        (30, 0.001, 0.909),
        (1, 0.1, 0.203),
        (3, 0.1, 0.179),
        (30, 0.1, 0.0),
        (120, 0.001, 0.0),
    ],
)
def test_jakes_table(speed_kmh, interval_s, rho):
    correlation = jakes_correlation(doppler_hz(speed_kmh, 3.5), interval_s)
    # The table rounds c to 3e8 m/s.
    assert correlation == pytest.approx(rho, abs=2e-3)


def test_doppler_and_standstill():
    assert doppler_hz(30, 3.5) == pytest.approx(97.3, abs=0.1)
    assert 0.999 < jakes_correlation(0.0, 1.0) < 1.0


def test_rayleigh_power_is_exponential():
    power = np.abs(scattered(100_000, np.random.default_rng(1))) ** 2
    assert power.mean() == pytest.approx(1.0, abs=0.02)
    assert np.mean(power > 2.0) == pytest.approx(np.exp(-2.0), abs=0.005)


@pytest.mark.parametrize("k_factor", [0.0, 1.0, 10.0])
def test_rician_power_moments(k_factor):
    coefficient = with_specular(
        scattered(200_000, np.random.default_rng(2)), np.full(200_000, k_factor)
    )
    power = np.abs(coefficient) ** 2
    assert power.mean() == pytest.approx(1.0, abs=0.02)
    assert power.var() == pytest.approx((2 * k_factor + 1) / (k_factor + 1) ** 2, abs=0.03)


def test_step_keeps_power_and_correlates_by_rho():
    rng = np.random.default_rng(3)
    before = scattered(200_000, rng)
    after = step(before, 0.8, rng)
    assert np.mean(np.abs(after) ** 2) == pytest.approx(1.0, abs=0.02)
    assert np.mean(after * before.conj()).real == pytest.approx(0.8, abs=0.01)


def test_shadowing_spread_per_client():
    sigma = np.repeat([0.0, 8.0], 50_000)
    drawn = shadowing_db(sigma, np.random.default_rng(4))
    assert not drawn[:50_000].any()
    assert drawn[50_000:].std() == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("k", [0.0, 0.5, 10.0])
def test_quantiles_of_the_power_are_those_of_drawn_coefficients(k):
    rng = np.random.default_rng(0)
    drawn = np.abs(with_specular(scattered(400_000, rng), np.full(400_000, k))) ** 2
    found = power_quantiles(np.array([k]), 20)
    assert found.shape == (1, 20)
    assert found[0] == pytest.approx(np.quantile(drawn, (np.arange(20) + 0.5) / 20), rel=0.03)
    assert power_quantiles(np.array([k]), 4000).mean() == pytest.approx(1.0, abs=0.01)
