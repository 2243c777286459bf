import numpy as np
import pytest
from scipy.integrate import dblquad

from airtune.radio.config import CellConfig
from airtune.radio.geometry import place_in_disc, towards
from airtune.radio.mobility import RandomWaypoint
from airtune.radio.placement import Placement

RADIUS_M = 1000.0


def walk(clients=30_000, speed=10.0, pause_s=0.0, interval_s=60.0, seed=0):
    def draw(count, rng):
        return towards(place_in_disc(count, RADIUS_M, 0.0, rng), rng)

    return RandomWaypoint(draw, clients, RADIUS_M, speed, pause_s, interval_s, seed)


def within(x):
    """Return the share of walkers without pause that are within ``x`` radii of the middle.

    By the density 45 (1 - r^2) / (64 pi) int_0^pi sqrt(1 - r^2 cos^2 phi) dphi of Hyytia, Lassila
    and Virtamo (2006).
    """
    return dblquad(
        lambda phi, r: (
            2 * np.pi * r * 45 * (1 - r**2) / (64 * np.pi) * np.sqrt(1 - (r * np.cos(phi)) ** 2)
        ),
        0, x, 0, np.pi,
    )[0]  # fmt: skip


@pytest.mark.parametrize(
    "interval_s, round", [(60.0, 0), (60.0, 40), (2500.0, 7)], ids=["first", "later", "forgotten"]
)
def test_every_round_has_the_stationary_law(interval_s, round):
    distance = np.abs(walk(interval_s=interval_s).at(round)) / RADIUS_M
    assert within(1.0) == pytest.approx(1.0, abs=1e-6)
    for x in (0.25, 0.5, 0.75, 0.9):
        # Three standard errors of a share among 30,000 are at most 0.0087.
        assert np.mean(distance < x) == pytest.approx(within(x), abs=0.009)


@pytest.mark.parametrize("speed, pause_s", [(10.0, 0.0), (10.0, 45.0), (100.0, 0.0)])
def test_walkers_stay_inside_and_keep_their_speed(speed, pause_s):
    walkers = walk(500, speed=speed, pause_s=pause_s, interval_s=20.0)
    track = np.array([walkers.at(round) for round in range(60)])
    steps = np.abs(np.diff(track, axis=0))
    assert np.abs(track).max() <= RADIUS_M * (1 + 1e-12)
    assert steps.max() <= speed * 20.0 * (1 + 1e-9)
    if speed == 10.0:
        # Who neither turns nor pauses goes the whole way, and most do: a leg takes 90 s.
        assert np.mean(np.isclose(steps, 200.0)) > 0.4


@pytest.mark.parametrize("round", [0, 300])
def test_pauses_take_their_share_of_the_time(round):
    walkers = walk(pause_s=60.0, interval_s=1.0)
    before, after = walkers.at(round), walkers.at(round + 1)
    # A leg is 128 R / (45 pi) long on average: 90.5 s at 10 m/s, then 60 s of rest. Who stood at
    # both moments paused, but for the one second that ends or begins a pause.
    standing = np.mean(before == after)
    leg_s = 128 * RADIUS_M / (45 * np.pi) / 10.0
    assert standing == pytest.approx(59.0 / (leg_s + 60.0), abs=0.009)


def test_what_counts_as_forgotten_is():
    # 19 crossings a round are still stepped, and one place says nothing of the next.
    walkers = walk(interval_s=1900.0)
    first, second = walkers.at(3), walkers.at(4)
    assert abs(np.corrcoef(np.abs(first), np.abs(second))[0, 1]) < 0.02
    assert abs(np.mean(first * second.conj())) / np.mean(np.abs(first) ** 2) < 0.02


@pytest.mark.parametrize("interval_s", [60.0, 2500.0])
def test_a_round_is_the_same_fresh_stepped_or_revisited(interval_s):
    stepped = walk(100, interval_s=interval_s)
    rounds = [stepped.at(round) for round in range(8)]
    assert np.array_equal(rounds[7], walk(100, interval_s=interval_s).at(7))
    assert np.array_equal(rounds[3], stepped.at(3))
    assert not np.array_equal(rounds[0], walk(100, interval_s=interval_s, seed=1).at(0))


@pytest.mark.parametrize("layout", ["disc", "hexagon"])
def test_who_walks_past_the_base_station_is_heard_as_from_the_smallest_distance(layout):
    config = CellConfig(
        mobility="random-waypoint", layout=layout, min_distance_m=50.0, speed_kmh=30.0
    )
    placement = Placement(config, 4000, seed=0)
    places = placement.at(6)
    assert places.distance_m.min() == 50.0 and np.abs(places.position).min() < 50.0
    assert places.distance_m.max() <= 200.0
    moved = np.abs(placement.at(7).position - places.position)
    assert np.median(moved) > 41.0 and moved.max() <= 83.334
