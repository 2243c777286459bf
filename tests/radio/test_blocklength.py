import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from airtune.radio.blocklength import (
    dispersion,
    finite_efficiency,
    finite_error,
    symbols_within,
)

SYMBOLS = np.array([200, 1000, 10_000])


def test_rates_of_short_blocks_at_ten_db():
    assert np.log2(11.0) == pytest.approx(3.459, abs=5e-4)
    assert finite_efficiency(10.0, SYMBOLS, 1e-3) == pytest.approx([3.165, 3.324, 3.416], abs=6e-4)


def test_by_hand_with_the_tail_of_a_table():
    # Q^-1(1e-3) = 3.0902; V = 1 - 1/121; n = 200: 3.45943 - 3.0902 * 0.070417 * 1.442695
    # = 3.14549, and log2(200) / 400 = 0.019110 more.
    assert dispersion(10.0) == pytest.approx(120 / 121)
    assert finite_efficiency(10.0, 200, 1e-3) == pytest.approx(3.16460, abs=2e-5)
    assert finite_efficiency(0.01, 10, 1e-9) == 0.0


def test_the_dispersion_is_the_variance_of_the_information_density():
    # i(x; y) of a complex Gaussian channel whose input has constant power, in nats: ln(1 + snr)
    # + |y|^2 / (1 + snr) - |n|^2 with y = sqrt(snr) + n.
    snr, rng = 3.0, np.random.default_rng(0)
    noise = np.sqrt(0.5) * rng.standard_normal((400_000, 2)).view(np.complex128)[:, 0]
    density = np.log1p(snr) + np.abs(np.sqrt(snr) + noise) ** 2 / (1 + snr) - np.abs(noise) ** 2
    assert density.mean() == pytest.approx(np.log1p(snr), abs=6e-3)
    assert density.var() == pytest.approx(dispersion(snr), rel=0.015)


@settings(max_examples=100, deadline=None)
@given(st.floats(-10, 30), st.floats(2, 5), st.floats(-8, -0.5))
def test_error_and_rate_are_inverse(snr_db, log_symbols, log_error):
    snr, symbols, error = 10 ** (snr_db / 10), 10**log_symbols, 10**log_error
    rate = finite_efficiency(snr, symbols, error)
    if rate > 0.0:
        assert finite_error(snr, symbols, rate) == pytest.approx(error, rel=1e-6)


def test_the_error_is_a_gaussian_tail():
    margin = (np.log(4.0) - 1.8 * np.log(2.0) + np.log(500) / 1000) / np.sqrt((15 / 16) / 500)
    tail, _ = integrate.quad(lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi), margin, np.inf)
    assert finite_error(3.0, 500, 1.8) == pytest.approx(tail, rel=1e-8)


def test_from_some_length_on_it_does_not_matter():
    snr = np.array([1.0, 10.0, 100.0])
    least = symbols_within(snr, 1e-3, 0.05)
    kept = finite_efficiency(snr, least, 1e-3) / np.log2(1 + snr)
    assert (kept >= 0.95).all() and (kept < 0.97).all()
    # Without its logarithmic term the loss is the share itself, up to whole symbols.
    bare = kept - np.log2(least) / (2 * least) / np.log2(1 + snr)
    assert bare == pytest.approx(np.full(3, 0.95), abs=5e-4)
