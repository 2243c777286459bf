import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.radio.rate import RateModel, bandwidth_for_rate_hz, in_outage, occupied_hz, rate_bps

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)
MODELS = st.sampled_from([PLAIN, SHANNON, RateModel(gap_db=3.0, min_snr_db=-20.0)])
SNR_HZ = st.floats(1e2, 1e14)


def test_shannon_by_hand():
    assert rate_bps(1e6, 3e6, SHANNON) == pytest.approx(2e6)
    # 2 dB is a factor 1.5849: log2(1 + 15.849 / 1.5849) = 3.4594
    assert rate_bps(1e6, 15.8489e6, PLAIN) == pytest.approx(3.4594e6, rel=1e-4)


def test_cap_and_floor_by_hand():
    assert rate_bps(1e6, 1e12, PLAIN) == pytest.approx(5.55e6)
    # With 1e5 Hz of SNR and a floor of 0.31623 no more than 316.2 kHz is worth occupying.
    assert occupied_hz(1e9, 1e5, PLAIN) == pytest.approx(316_227.8)
    assert rate_bps(1e9, 1e5, PLAIN) == pytest.approx(316_227.8 * np.log2(1 + 10**-0.7), rel=1e-6)


def test_outage_is_one_block_below_the_floor():
    edge = 180e3 * 10**-0.5
    assert in_outage([edge * 0.999, edge * 1.001, np.inf], PLAIN).tolist() == [True, False, False]


def test_extremes_raise_no_warning():
    assert rate_bps([0.0, 1e6, 0.0], [1e6, 0.0, 0.0], PLAIN).tolist() == [0, 0, 0]
    assert rate_bps(1e6, np.inf, PLAIN) == pytest.approx(5.55e6)
    assert bandwidth_for_rate_hz([0.0, 1.0, 1e6], [1e6, 0.0, np.inf], PLAIN).tolist() == [
        0.0,
        np.inf,
        1e6 / 5.55,
    ]


def test_infinite_bandwidth_limit_is_infeasible():
    # Without a floor to speak of, c / ln 2 is the limit of Shannon's law.
    limit = 1e6 / np.log(2)
    assert np.isinf(bandwidth_for_rate_hz(limit, 1e6, SHANNON))
    assert np.isfinite(bandwidth_for_rate_hz(limit * 0.999, 1e6, SHANNON))


@settings(max_examples=150, deadline=None)
@given(SNR_HZ, st.floats(1e-12, 1.0), MODELS)
def test_rate_to_bandwidth_and_back(snr_hz, share, model):
    rate = share * rate_bps(np.inf, snr_hz, model)
    width = bandwidth_for_rate_hz(rate, snr_hz, model)
    assert rate_bps(width, snr_hz, model) == pytest.approx(rate, rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(SNR_HZ, st.floats(1e-9, 0.999), st.sampled_from([PLAIN, RateModel(min_snr_db=-20.0)]))
def test_bandwidth_to_rate_and_back(snr_hz, share, model):
    width = share * occupied_hz(np.inf, snr_hz, model)
    again = bandwidth_for_rate_hz(rate_bps(width, snr_hz, model), snr_hz, model)
    assert again == pytest.approx(width, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e3, 1e9), SNR_HZ, st.floats(1.0, 10.0), MODELS)
def test_rate_never_falls_with_bandwidth_or_snr(bandwidth_hz, snr_hz, factor, model):
    base = rate_bps(bandwidth_hz, snr_hz, model) * (1 - 1e-12)
    assert rate_bps(bandwidth_hz * factor, snr_hz, model) >= base
    assert rate_bps(bandwidth_hz, snr_hz * factor, model) >= base
