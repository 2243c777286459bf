"""Rates in steps, against the table by hand and against searches that know nothing of corners."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from airtune.radio import mcs
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.rate import (
    RateModel,
    bandwidth_for_rate_hz,
    in_outage,
    occupied_hz,
    rate_bps,
    rate_slope,
    snr_for_rate_hz,
)
from airtune.scheduling.bandwidth import best_snr_shares, min_max_delay
from airtune.scheduling.tsfa import Band, priced_shares

MCS = RateModel(law="mcs")
SNR_HZ = st.floats(1e2, 1e14)


def test_efficiencies_by_hand():
    found = dict(zip(mcs.INDEX.tolist(), mcs.EFFICIENCY.round(4).tolist(), strict=True))
    # The efficiencies that TS 38.214 prints beside modulation and code rate.
    assert found == {
        3: 0.4902, 5: 0.7402, 7: 1.0273, 9: 1.3262, 10: 1.3281, 12: 1.6953, 14: 2.1602,
        16: 2.5703, 18: 2.7305, 20: 3.3223, 22: 3.9023, 24: 4.5234, 26: 5.1152, 27: 5.3320,
    }  # fmt: skip


def test_thresholds_stay_as_far_from_shannon_as_was_measured():
    gap_db = 10 * np.log10(mcs.THRESHOLD_SNR / (2**mcs.EFFICIENCY - 1))
    assert (gap_db[mcs.INDEX <= 16] > 0.8).all() and (gap_db[mcs.INDEX <= 16] < 2.0).all()
    assert (gap_db[mcs.INDEX > 16] > 2.7).all() and (gap_db[mcs.INDEX > 16] < 3.4).all()


def test_steps_of_efficiency():
    snr = 10 ** (np.array([-2.8, -2.7, 12.4, 12.6, 18.9, 19.1, 60.0]) / 10)
    steps = [0, 0.4902, 2.7305, 3.3223, 5.1152, 5.3320, 5.3320]
    assert mcs.mcs_efficiency(snr) == pytest.approx(steps, abs=1e-4)


def test_rates_by_hand():
    # 20 dB over 1 MHz: the best scheme, wherever the rest of the share could be used or not.
    assert rate_bps(1e6, 1e8, MCS) == pytest.approx(5.33203125e6)
    # 12 dB over 1 MHz allows MCS 18, 2.7305 Mbit/s; MCS 20 on 10^(12 - 12.5)/10 MHz carries
    # 3.3223 * 0.89125 = 2.9610 Mbit/s, MCS 22 3.9023 * 0.56234 = 2.1944.
    snr_hz = 10**1.2 * 1e6
    assert rate_bps(1e6, snr_hz, MCS) == pytest.approx(2.9610e6, rel=1e-4)
    assert occupied_hz(1e6, snr_hz, MCS) == pytest.approx(0.89125e6, rel=1e-4)
    # Beyond the lowest threshold, -2.75 dB, no hertz helps.
    assert occupied_hz(1e9, 1e6, MCS) == pytest.approx(1.88365e6, rel=1e-5)
    assert rate_bps(1e9, 1e6, MCS) == pytest.approx(0.923430e6, rel=1e-5)


def test_outage_is_one_block_below_the_lowest_scheme():
    edge = 180e3 * 10**-0.275
    assert in_outage([edge * 0.999, edge * 1.001, np.inf], MCS).tolist() == [True, False, False]


@settings(max_examples=100, deadline=None)
@given(st.floats(3, 9), SNR_HZ)
def test_the_rate_is_the_best_of_all_parts_of_the_share(log_width, snr_hz):
    width = 10**log_width
    edges = snr_hz / mcs.THRESHOLD_SNR * (1 - 1e-12)
    parts = np.concatenate([np.linspace(0.0, 1.0, 2001)[1:] * width, edges[edges <= width]])
    searched = (parts * mcs.mcs_efficiency(snr_hz / parts)).max()
    # At a threshold itself, rounding decides on which side of the step the search looks.
    assert rate_bps(width, snr_hz, MCS) == pytest.approx(searched, rel=1e-9)
    used = float(occupied_hz(width, snr_hz, MCS)) * (1 - 1e-12)
    assert used <= width
    assert used * mcs.mcs_efficiency(snr_hz / used) == pytest.approx(searched, rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(SNR_HZ, st.floats(1e-12, 1.0))
def test_the_bandwidth_of_a_rate_carries_it_and_no_less_does(snr_hz, share):
    rate = share * rate_bps(np.inf, snr_hz, MCS)
    width = bandwidth_for_rate_hz(rate, snr_hz, MCS)
    assert rate_bps(width, snr_hz, MCS) == pytest.approx(rate, rel=1e-11)
    assert rate_bps(width * (1 - 1e-9), snr_hz, MCS) < rate * (1 - 1e-10)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e3, 1e9), SNR_HZ, st.floats(1.0, 10.0))
def test_rate_never_falls_with_bandwidth_or_snr(bandwidth_hz, snr_hz, factor):
    base = rate_bps(bandwidth_hz, snr_hz, MCS)
    assert rate_bps(bandwidth_hz * factor, snr_hz, MCS) >= base
    assert rate_bps(bandwidth_hz, snr_hz * factor, MCS) >= base


@settings(max_examples=200, deadline=None)
@given(bandwidth_hz=st.floats(1e3, 1e9), share=st.floats(0.0, 1.0))
def test_the_snr_of_a_rate_carries_it_and_no_less_does(bandwidth_hz, share):
    rate = share * mcs.EFFICIENCY[0] * bandwidth_hz
    needed = float(snr_for_rate_hz(bandwidth_hz, rate, MCS))
    assert rate_bps(bandwidth_hz, needed, MCS) == pytest.approx(rate, rel=1e-9)
    if rate > 0:
        assert rate_bps(bandwidth_hz, 0.999 * needed, MCS) < rate
    assert snr_for_rate_hz(bandwidth_hz, 1.001 * mcs.EFFICIENCY[0] * bandwidth_hz, MCS) == np.inf


def test_the_slope_is_that_of_the_convex_hull():
    width = np.concatenate([[0.0], 1e6 / mcs.THRESHOLD_SNR[:], np.linspace(1.0, 3e6, 4000)])
    rate = rate_bps(width, 1e6, MCS)
    hull = ConvexHull(np.stack([width, rate], axis=1))
    left, right = np.sort(hull.points[hull.simplices][:, :, 0], axis=1).T
    upper = hull.equations[:, 1] > 1e-12
    slopes = -hull.equations[upper, 0] / hull.equations[upper, 1]
    middle = 0.5 * (left + right)[upper]
    assert rate_slope(middle, 1e6, MCS) == pytest.approx(slopes, rel=1e-6, abs=1e-6)
    dense = rate_slope(np.geomspace(1.0, 1e10, 5000), 1e6, MCS)
    assert (np.diff(dense) <= 0).all() and dense[-1] == 0.0 and dense[0] == 5.33203125
    ceiling = np.concatenate([[0.0], np.cumsum(rate_slope(width[15:-1], 1e6, MCS) * 3e6 / 3999)])
    assert (rate[15:] / np.maximum(ceiling, rate[15]) > 0.87).all()


def test_extremes_raise_no_warning():
    with np.errstate(all="raise"):
        assert rate_bps([0.0, 1e6, 0.0], [1e6, 0.0, 0.0], MCS).tolist() == [0, 0, 0]
        assert rate_bps(1e6, np.inf, MCS) == pytest.approx(5.33203125e6)
        least = bandwidth_for_rate_hz([0.0, 1.0, 1e6], [1e6, 0.0, np.inf], MCS)
        assert least.tolist() == [0.0, np.inf, 1e6 / 5.33203125]
        assert rate_slope([0.0, 1e6, 1.0], [1e9, np.inf, 0.0], MCS).tolist() == [
            5.33203125,
            5.33203125,
            0.0,
        ]


def test_shares_by_snr_are_within_12_percent_of_the_largest_sum_of_rates():
    rng, part = np.random.default_rng(3), np.linspace(0, 1, 4001)[1:-1]
    below = []
    for _ in range(300):
        snr_hz = 20e6 * 10 ** rng.uniform(-0.4, 2.2, 2)
        found = rate_bps(best_snr_shares(snr_hz, 20e6), snr_hz, MCS).sum()
        tried = rate_bps(part * 20e6, snr_hz[0], MCS) + rate_bps((1 - part) * 20e6, snr_hz[1], MCS)
        below.append(1.0 - found / tried.max())
    assert 0.05 < max(below) < 0.12


def test_min_max_delay_is_the_best_of_a_grid():
    bits, snr_hz = np.array([4e6, 1e6]), np.array([2e7, 3e6])
    width, finish = min_max_delay(bits, snr_hz, 0.0, 2e6, MCS)
    grid = np.linspace(0.0, 2e6, 200_001)[1:-1]
    each = np.stack([grid, 2e6 - grid])
    searched = (bits[:, None] / rate_bps(each, snr_hz[:, None], MCS)).max(0).min()
    assert width.sum() == pytest.approx(2e6)
    assert finish.max() <= searched * (1 + 1e-9)
    assert finish.max() == pytest.approx(searched, rel=1e-3)


def test_shares_by_price_are_near_the_best_of_a_grid():
    rng = np.random.default_rng(0)
    grid = np.linspace(0.0, 2e6, 20_001)[1:-1]
    for _ in range(15):
        band = Band(2e6, 10 ** rng.uniform(5.5, 8.5, 2), MCS)
        load = rng.uniform(0.1, 10.0, 2) * 1e6
        share = priced_shares(load, band)
        each = np.stack([grid, 2e6 - grid])
        rates = rate_bps(each, band.snr_hz[:, None], MCS)
        searched = (load[:, None] / rates).sum(0).min()
        # The steps lie 12 % below their concave curve at most.
        assert searched * (1 - 1e-3) <= (load / band.rate(share)).sum() <= searched / 0.878


def test_a_link_below_the_threshold_of_its_scheme_is_in_outage():
    config = CellConfig(rate=MCS, csi="statistical", fading="rayleigh", fade_margin_db=6.0)
    links, air = Cell(config, 400, seed=1).links(0), Air(config, 1)
    lost, expected = [], []
    for client in range(400):
        planned, snr_hz = links.planned_snr_hz[client], links.snr_hz[client]
        width = float(occupied_hz(1e6, planned, MCS))
        scheme = mcs.mcs_efficiency(planned / width * (1 + 1e-12))
        rate = float(rate_bps(1e6, planned, MCS))
        assert rate == pytest.approx(width * scheme, rel=1e-9)
        grant = Grant(client, np.inf, config.power_w, 1e6, rate)
        lost.append(air.uplink(1000, links, grant).status == "outage")
        threshold = mcs.THRESHOLD_SNR[np.flatnonzero(scheme == mcs.EFFICIENCY)[0]]
        unheard = snr_hz < mcs.LOWEST_SNR * config.rate.resource_block_hz
        expected.append(snr_hz / width < threshold * (1 - 1e-9) or unheard)
    assert lost == expected and 20 < sum(lost) < 200


def test_keys_of_the_other_law_are_refused():
    assert CellConfig(rate={"law": "mcs"}).rate == MCS
    assert RateModel.model_validate(MCS.model_dump()) == MCS
    with pytest.raises(ValueError, match="gap_db belongs to law shannon"):
        RateModel(law="mcs", gap_db=0.0)
