import numpy as np
import pytest

from airtune.radio.geometry import place_in_disc
from airtune.radio.path_loss import (
    PATH_LOSS,
    free_space_db,
    log_distance_db,
    los_probability,
    uma_db,
    umi_db,
)

# Slant distance (m): UMa LOS, UMa NLOS, UMi LOS, UMi NLOS, log-distance; dB at 3.5 GHz.
TABLE = {
    50: (76.3, 90.8, 79.0, 94.0, 79.2),
    100: (82.9, 102.6, 85.3, 104.6, 90.5),
    200: (89.5, 114.3, 91.6, 115.2, 101.8),
    500: (98.3, 129.9, None, 129.3, 116.8),
}


@pytest.mark.parametrize("slant", TABLE)
def test_loss_matches_the_table(slant):
    uma_los, uma_nlos, umi_los, umi_nlos, legacy = TABLE[slant]
    for loss, height, los, nlos in (
        (uma_db, 25, uma_los, uma_nlos),
        (umi_db, 10, umi_los, umi_nlos),
    ):
        flat = np.array([np.sqrt(slant**2 - (height - 1.5) ** 2)])
        if los is not None:
            assert loss(flat, 3.5, np.array([True]))[0] == pytest.approx(los, abs=0.06)
        assert loss(flat, 3.5, np.array([False]))[0] == pytest.approx(nlos, abs=0.06)
    assert log_distance_db(np.array([slant]))[0] == pytest.approx(legacy, abs=0.06)


def test_second_slope_by_hand():
    # Breakpoint 4*9*0.5*3.5e9/c = 210.15 m; 32.4 + 40*2.69904 + 10.8814 - 9.5*log10(44233)
    assert umi_db(np.array([500.0]), 3.5, np.array([True]))[0] == pytest.approx(107.11, abs=0.02)


@pytest.mark.parametrize("loss, corner", [(umi_db, 210.145), (uma_db, 560.387)])
def test_slopes_meet_at_the_breakpoint(loss, corner):
    near, far = loss(np.array([corner - 0.01, corner + 0.01]), 3.5, np.array([True, True]))
    assert far - near == pytest.approx(0.0, abs=0.01)


def test_free_space_at_one_kilometre_and_one_gigahertz():
    assert free_space_db(np.array([1000.0]), 1.0)[0] == pytest.approx(92.45, abs=0.005)


def test_line_of_sight_probability():
    chance = los_probability(np.array([5.0, 18.0, 36.0, 100.0]), 36.0)
    assert chance[:2] == pytest.approx([1.0, 1.0])
    assert chance[2] == pytest.approx(0.5 + np.exp(-1) * 0.5)
    assert chance[3] == pytest.approx(0.18 + np.exp(-100 / 36) * 0.82)


def test_every_model_has_its_shadowing():
    spread = {name: (m.shadowing_los_db, m.shadowing_nlos_db) for name, m in PATH_LOSS.items()}
    assert spread["umi"] == (4.0, 7.82)
    assert spread["uma"] == (4.0, 6.0)


def test_placement_is_uniform_over_area():
    distance = place_in_disc(40_000, 200.0, 20.0, np.random.default_rng(0))
    assert distance.min() >= 20.0 and distance.max() <= 200.0
    # Half of the ring's area lies within sqrt((20^2 + 200^2)/2) = 142.1 m.
    assert np.mean(distance < 142.13) == pytest.approx(0.5, abs=0.01)
