import numpy as np
import pytest
from scipy.stats import kstest

from airtune.radio.spatial import NormalMap

DECORRELATION_M = 20.0


@pytest.fixture(scope="module")
def maps():
    return [NormalMap(DECORRELATION_M, np.random.default_rng(seed)) for seed in range(6)]


def pairs(maps, distance_m, count=20_000):
    """Return the numbers of places anywhere on each map and of others at a distance from them."""
    rng = np.random.default_rng(5)
    here = 1280.0 * (rng.random(count) + 1j * rng.random(count))
    there = here + distance_m * np.exp(2j * np.pi * rng.random(count))
    return (np.concatenate([one.at(place) for one in maps]) for place in (here, there))


@pytest.mark.parametrize("share, slack", [(0.03, 0.012), (0.1, 0.01), (0.25, 0.015), (0.5, 0.02)])
def test_near_places_differ_as_the_covariance_says(maps, share, slack):
    here, there = pairs(maps, share * DECORRELATION_M)
    # Half the mean squared difference is 1 - exp(-d / d_cor), and is nearly free of the error
    # that few decorrelation areas make in a mean.
    found = 0.5 * np.mean((here - there) ** 2)
    assert found == pytest.approx(1.0 - np.exp(-share), abs=slack)


@pytest.mark.parametrize("share", [1.0, 2.0, 4.0])
def test_far_places_correlate_as_the_covariance_says(maps, share):
    here, there = pairs(maps, share * DECORRELATION_M)
    # 6 maps of 64 x 64 squared decorrelation distances: about 4,000 independent areas, 0.016.
    assert np.mean(here * there) == pytest.approx(np.exp(-share), abs=0.05)


def test_numbers_are_standard_normal_on_nodes_and_between_them(maps):
    rng = np.random.default_rng(7)
    between = 1280.0 * (rng.random(2000) + 1j * rng.random(2000))
    spacing_m = DECORRELATION_M / 16
    for places in (between, spacing_m * np.round(between / spacing_m)):
        drawn = np.concatenate([one.at(places) for one in maps])
        assert drawn.mean() == pytest.approx(0.0, abs=0.06)
        assert drawn.var() == pytest.approx(1.0, abs=0.06)
        assert kstest(drawn, "norm").statistic < 0.02


def test_along_a_track_the_numbers_are_a_first_order_autoregression(maps):
    rng = np.random.default_rng(8)
    start = 1280.0 * (rng.random(4000) + 1j * rng.random(4000))
    heading = np.exp(2j * np.pi * rng.random(4000))
    track = np.array([
        np.concatenate([one.at(start + steps * 10.0 * heading) for one in maps])
        for steps in range(3)
    ])  # fmt: skip
    # Given the number before, the one before that says nothing: beyond rho = exp(-10/20) per step.
    rho = np.exp(-0.5)
    fresh = track[2] - rho * track[1]
    assert np.mean(fresh * track[0]) == pytest.approx(0.0, abs=0.03)
    assert fresh.var() == pytest.approx(1 - rho**2, abs=0.03)


def test_the_map_has_no_seams(maps):
    along = np.linspace(-100.0, 1400.0, 200_001)
    for track in (along + 3.3j, 3.3 + 1j * along):
        assert np.abs(np.diff(maps[0].at(track))).max() < 0.05
    assert maps[0].at(np.array([5 + 7j])) == pytest.approx(maps[0].at(np.array([1285 - 1273j])))


def test_given_places_correlate_as_the_covariance_says_whatever_grid_they_lie_on():
    """Places a step of the grid apart: on its nodes, if it were not shifted."""
    step = DECORRELATION_M / 16
    i, j = np.meshgrid(np.arange(0, 900, 7), np.arange(0, 900, 7))
    here = (step * (i + 1j * j)).ravel()
    found = []
    for seed in range(24):
        one = NormalMap(DECORRELATION_M, np.random.default_rng(100 + seed))
        found.append(1.0 - 0.5 * np.mean((one.at(here) - one.at(here + step)) ** 2))
    # On nodes it would be 0.071 less on every map.
    assert np.mean(found) == pytest.approx(np.exp(-1 / 16), abs=0.025)
    assert np.ptp(found) > 0.02


def test_a_map_is_as_large_as_the_places_that_are_read_from_it():
    places = np.linspace(-400, 400, 4000) + 3j
    for reach_m, period_m, repeats in ((0.0, 448.0, True), (400.0, 448.0, False), (400, 896, True)):
        one = NormalMap(7.0, np.random.default_rng(0), reach_m)
        same = np.isclose(one.at(places), one.at(places + period_m))
        assert same.all() if repeats else same.mean() < 0.01
    far = NormalMap(1.0, np.random.default_rng(0), 100.0)
    assert np.abs(np.corrcoef(far.at(places / 4), far.at(-places / 4))[0, 1]) < 0.2


def test_the_smallest_map_keeps_its_numbers():
    one, other = (NormalMap(20.0, np.random.default_rng(0), reach_m) for reach_m in (0.0, 590.0))
    places = 1e3 * np.random.default_rng(1).standard_normal(100) * (1 + 1j)
    assert np.array_equal(one.at(places), other.at(places))
