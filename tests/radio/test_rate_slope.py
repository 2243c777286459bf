"""The slope of the rate against differences of the rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.radio.rate import RateModel, rate_bps, rate_slope

PLAIN = RateModel()
MODELS = [PLAIN, RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0), RateModel(gap_db=5)]


def kinks(snr_hz, model):
    """Bandwidths in Hz at which the cap lets go, and from which on power fills no more."""
    capped = snr_hz / (10 ** (model.gap_db / 10) * (2**model.max_efficiency - 1))
    return capped, snr_hz / 10 ** (model.min_snr_db / 10)


@settings(max_examples=200, deadline=None)
@given(st.floats(3, 8), st.floats(4, 12), st.sampled_from(MODELS))
def test_the_slope_is_that_of_the_rate(log_width, log_snr_hz, model):
    width, snr_hz = 10**log_width, 10**log_snr_hz
    near = 1e-4 * width
    if any(abs(width - kink) <= 2 * near for kink in kinks(snr_hz, model)):
        return
    ends = rate_bps(np.array([width - near, width + near]), snr_hz, model)
    slope = (ends[1] - ends[0]) / (2 * near)
    assert rate_slope(width, snr_hz, model) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_rate_is_the_integral_of_its_slope(model):
    # The trapezoids of a dense grid do not care for the two kinks.
    width = np.linspace(1.0, 40e6, 400_001)
    slope = rate_slope(width, 5e6, model)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(width))])
    start = rate_bps(width[0], 5e6, model)
    assert start + area[::5000] == pytest.approx(rate_bps(width[::5000], 5e6, model), rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(3, 13), st.sampled_from(MODELS))
def test_the_slope_never_rises_with_bandwidth_and_is_never_negative(log_snr_hz, model):
    snr_hz = 10**log_snr_hz
    around = [kink * (1 + shift) for kink in kinks(snr_hz, model) for shift in (-1e-9, 0, 1e-9)]
    width = np.sort(np.concatenate([np.geomspace(1.0, 1e10, 2000), around]))
    slope = rate_slope(width, snr_hz, model)
    assert (np.diff(slope) <= 1e-12).all()
    assert (slope >= 0).all() and slope.max() <= model.max_efficiency


def test_cap_and_end_by_hand():
    capped, filled = kinks(1e7, PLAIN)
    assert rate_slope(0.999 * capped, 1e7, PLAIN) == 5.55
    assert rate_slope(1.001 * capped, 1e7, PLAIN) < 5.55
    assert rate_slope(0.999 * filled, 1e7, PLAIN) > 0
    assert rate_slope(1.001 * filled, 1e7, PLAIN) == 0
    # log2(1 + 1) - 1 / (2 ln 2) where power over gap and bandwidth is one.
    even = RateModel(gap_db=0.0)
    assert rate_slope(1e6, 1e6, even) == pytest.approx(1 - 0.5 / np.log(2))


def test_arguments_broadcast():
    width, snr_hz = np.array([[1e5], [1e6]]), np.array([1e5, 1e7, 1e9])
    found = rate_slope(width, snr_hz, PLAIN)
    assert found.shape == (2, 3)
    each = [[float(rate_slope(w, s, PLAIN)) for s in snr_hz] for w in width[:, 0]]
    assert found.tolist() == each


def test_a_link_without_power_gains_nothing():
    assert rate_slope([1.0, 1e6], 0.0, PLAIN).tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "snr_hz"), [(0.0, 1e9), (1e6, np.inf)])
def test_extremes_raise_no_warning(width, snr_hz):
    assert rate_slope(width, snr_hz, PLAIN) == 5.55
