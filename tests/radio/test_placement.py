import numpy as np
import pytest
from pydantic import ValidationError

from airtune.errors import UserError
from airtune.radio.config import CellConfig
from airtune.radio.geometry import place_in_hexagon, towards
from airtune.radio.placement import Placement


def test_a_hexagon_is_filled_evenly_to_its_sides_and_corners():
    points = place_in_hexagon(60_000, 100.0, 20.0, np.random.default_rng(0))
    # The six sides' normals point to 30, 90, ... degrees, and sides are 86.6 m away.
    normals = np.exp(1j * np.pi / 6 * np.arange(1, 13, 2))
    outwards = np.max((points[:, None] * normals.conj()).real, axis=1)
    assert outwards.max() <= 86.603 and np.abs(points).min() >= 20.0
    assert np.abs(points).max() > 98.0
    # Parallels of the sides enclose hexagons, of area 2 sqrt(3) s^2, around the hole's.
    hole, whole = np.pi * 20**2, 2 * np.sqrt(3) * 86.6025**2
    within = (2 * np.sqrt(3) * 60**2 - hole) / (whole - hole)
    assert np.mean(outwards < 60.0) == pytest.approx(within, abs=0.006)
    sector = np.floor(np.angle(points) / (np.pi / 3)).astype(int) % 6
    assert np.bincount(sector, minlength=6) == pytest.approx(10_000, rel=0.05)


def test_the_discs_distances_are_kept_and_all_directions_are_as_likely():
    distance = np.linspace(10.0, 200.0, 30_000)
    points = towards(distance, np.random.default_rng(1))
    assert np.abs(points) == pytest.approx(distance)
    # The mean of 30,000 unit vectors is 1/sqrt(30,000) = 0.006 long.
    assert abs(np.mean(points / distance)) < 0.02


def test_fixed_clients_stand_where_they_are_put():
    config = CellConfig(layout="fixed", positions_m=[[30, 40], [0, -100]])
    places = Placement(config, 2, seed=0).at(5)
    assert places.distance_m == pytest.approx([50.0, 100.0])
    assert places.position == pytest.approx([30 + 40j, -100j])
    with pytest.raises(UserError, match=r"cell.positions_m: there are 2 positions for 3 clients"):
        Placement(config, 3, seed=0)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"layout": "fixed"}, "positions_m goes with layout: fixed"),
        ({"positions_m": [[50, 0]]}, "positions_m goes with layout: fixed"),
        ({"layout": "fixed", "positions_m": [[50, 0], [3, 4]]}, "client 1 is 5 m from the base"),
        ({"layout": "hexagon", "min_distance_m": 180}, "below 173.205 m, where the sides"),
        (
            {"layout": "fixed", "positions_m": [[50, 0]], "mobility": "random-waypoint"},
            "mobility needs an area",
        ),
        ({"mobility": "random-waypoint", "speed_kmh": 0}, "speed_kmh above 0"),
        ({"path_loss": "inh-open", "indoor_fraction": 0.5}, "clients of inh-open are all indoors"),
        ({"snr_db": [0, 10], "trace": "t.csv"}, "give snr_db or trace, not both"),
        ({"snr_db": [0, 10], "noise_rise_db": 3}, "leave noise_rise_db at 0"),
        ({"trace": "t.csv", "noise_rise_db": 3}, "leave noise_rise_db at 0"),
        ({"trace": "t.csv", "preset": "ideal"}, "an ideal cell has no trace"),
    ],
)
def test_what_does_not_go_together_is_said(wrong, sentence):
    with pytest.raises(ValidationError, match=sentence):
        CellConfig.model_validate(wrong)
