import numpy as np
import pytest
from scipy.stats import gamma, kstest, spearmanr

from airtune.radio.cell import Cell, likely_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.fading import nakagami_power, nakagami_quantiles


@pytest.mark.parametrize("m", [0.5, 1.0, 2.7, 20.0])
def test_powers_have_mean_one_variance_one_over_m_and_the_law(m):
    drawn = nakagami_power(np.random.default_rng(0).exponential(size=200_000), m)
    # Standard errors: sqrt(1/m)/447 of the mean; for m = 0.5 about 0.02 of the variance, 2.
    assert drawn.mean() == pytest.approx(1.0, abs=4 * np.sqrt(1 / m) / 447)
    assert drawn.var() == pytest.approx(1.0 / m, rel=0.04)
    assert kstest(drawn, gamma(m, scale=1 / m).cdf).statistic < 0.004


def test_the_curve_is_exact_into_both_tails():
    power = np.array([1e-10, 1e-3, 0.1, 1.0, 5.0, 25.0])
    assert nakagami_power(power, 1.0) == pytest.approx(power, rel=1e-12)
    for m in (0.5, 3.3, 50.0):
        exact = gamma(m, scale=1 / m)
        found = nakagami_power(power, m)
        assert exact.cdf(found[:4]) == pytest.approx(-np.expm1(-power[:4]), rel=1e-8)
        assert exact.sf(found[3:]) == pytest.approx(np.exp(-power[3:]), rel=1e-8)


def test_with_m_one_a_cell_is_the_rayleigh_cell():
    gains = [
        Cell(CellConfig(fading=fading, nakagami_m=1.0), 500, seed=1).links(3).gain
        for fading in ("nakagami", "rayleigh")
    ]
    assert gains[0] == pytest.approx(gains[1], rel=1e-12)


def test_jakes_memory_is_that_of_rayleigh_in_ranks():
    slow = {"speed_kmh": 0.3, "round_interval_s": 0.1}
    ranks = {}
    for fading in ("rayleigh", "nakagami"):
        cell = Cell(CellConfig(fading=fading, nakagami_m=4.0, **slow), 5000, seed=0)
        powers = [cell.links(round).gain / cell.mean_gain for round in (1, 2)]
        ranks[fading] = spearmanr(*powers).statistic
    assert ranks["nakagami"] == pytest.approx(ranks["rayleigh"], abs=1e-9)
    assert ranks["nakagami"] > 0.75


@pytest.mark.parametrize("m", [0.5, 3.0])
def test_likely_links_are_quantiles_of_those_that_come(m):
    config = CellConfig(fading="nakagami", nakagami_m=m)
    cell = Cell(config, 3, seed=0)
    drawn = np.array([cell.links(round).snr_hz for round in range(3000)])
    found = likely_snr_hz(config, cell.links(1), np.array([2, 0]), 10)
    assert found.shape == (2, 10)
    middle = (np.arange(10) + 0.5) / 10
    for row, client in zip(found, (2, 0), strict=True):
        share = [np.mean(drawn[:, client] < value) for value in row]
        assert share == pytest.approx(middle, abs=0.03)
    assert nakagami_quantiles(m, 4000).mean() == pytest.approx(1.0, abs=0.01)
