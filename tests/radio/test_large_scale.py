import numpy as np
import pytest

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.indoors import indoors, low_loss_db
from airtune.radio.large_scale import LargeScale
from airtune.radio.line_of_sight import inh_los_probability, rma_los_probability
from airtune.radio.path_loss import PATH_LOSS, inh_db, log_distance_db, rma_breakpoint_m, rma_db

SEEN, HIDDEN = np.array([True]), np.array([False])


def flat(slant_m, climb_m):
    return np.array([np.sqrt(slant_m**2 - climb_m**2)])


def test_rural_loss_by_hand():
    # 20 log10(146607.66) + 15.9304 (0.03 x 3 - 0.044) + 0.002 x 0.69897 x 1000
    place = flat(1000.0, 33.5)
    assert rma_db(place, 3.5, SEEN)[0] == pytest.approx(105.454, abs=0.002)
    # 161.04 - 9.2373 + 5.2423 - 24.2945 x 1.54407 + 0 + 10.8814 + 0.0009
    assert rma_db(place, 3.5, HIDDEN)[0] == pytest.approx(130.415, abs=0.002)
    # The breakpoint is 2 pi 35 x 1.5 x 3.5e9 / c; beyond it, 40 dB a decade.
    corner = rma_breakpoint_m(3.5)
    assert corner == pytest.approx(3851.1, abs=0.2)
    near, far = rma_db(np.array([corner - 0.01, corner + 0.01]), 3.5, np.array([True, True]))
    assert far - near == pytest.approx(0.0, abs=0.01)
    one, ten = rma_db(np.array([5e3, 50e3]), 3.5, np.array([True, True]))
    assert ten - one == pytest.approx(40.0, abs=0.001)


def test_office_loss_by_hand():
    # 32.4 + 17.3 + 20 x 0.544068, and 17.3 + 38.3 + 24.9 x 0.544068
    place = flat(10.0, 2.0)
    assert inh_db(place, 3.5, SEEN)[0] == pytest.approx(60.581, abs=0.001)
    assert inh_db(place, 3.5, HIDDEN)[0] == pytest.approx(69.147, abs=0.001)
    # At 2 m the formula out of sight is below the one in sight, which then holds.
    assert inh_db(np.array([0.0]), 3.5, HIDDEN) == inh_db(np.array([0.0]), 3.5, SEEN)


def test_log_distance_with_numbers_of_ones_own():
    # As c0 (d / d0)^-alpha: 30 dB at 1 m, exponent 2.2.
    assert log_distance_db(np.array([100.0]), 2.2, 30.0, 1.0)[0] == pytest.approx(74.0)
    config = CellConfig(
        path_loss="log-distance", log_distance_exponent=2.2, log_distance_reference_db=30.0,
        log_distance_reference_m=1.0, shadowing_db=0.0, layout="fixed", positions_m=[[0, 100]],
    )  # fmt: skip
    assert Cell(config, 1, 0).links(1).mean_gain == pytest.approx(10**-7.4)


def test_chances_of_sight_by_hand():
    assert rma_los_probability(np.array([5.0, 1010.0])) == pytest.approx([1.0, np.exp(-1)])
    mixed = inh_los_probability(np.array([1.0, 5.9, 39.1]), "mixed")
    assert mixed == pytest.approx([1.0, np.exp(-1), 0.32 * np.exp(-1)])
    opened = inh_los_probability(np.array([4.0, 40.4, 260.7]), "open")
    assert opened == pytest.approx([1.0, np.exp(-0.5), 0.54 * np.exp(-1)])


def test_rural_shadowing_widens_beyond_the_breakpoint():
    distance, where = np.array([100.0, 5000.0, 100.0, 100.0]), np.array([0, 0, 1, 2])
    assert PATH_LOSS["rma"].spread_db(distance, 3.5, where).tolist() == [4.0, 6.0, 8.0, 8.0]
    assert PATH_LOSS["umi"].spread_db(distance, 3.5, where).tolist() == [4.0, 4.0, 7.82, 7.0]


def test_the_wall_and_what_is_behind_it_by_hand():
    # 5 - 10 log10(0.3 x 10^-0.27 + 0.7 x 10^-1.9) = 12.6975, and half a dB per metre.
    assert low_loss_db(np.array([0.0, 10.0]), 3.5) == pytest.approx([12.6975, 17.6975], abs=1e-3)


def test_a_share_of_the_clients_is_indoors():
    drawn = indoors(0.3, 3.5, 40_000, seed=0)
    assert drawn.inside.mean() == pytest.approx(0.3, abs=0.01)
    assert not drawn.loss_db[~drawn.inside].any() and not drawn.depth_m[~drawn.inside].any()
    depth, loss = drawn.depth_m[drawn.inside], drawn.loss_db[drawn.inside]
    # Of the smaller of two draws: 25 (1 - sqrt(1 - p)).
    tenths = 25 * (1 - np.sqrt(1 - np.array([0.1, 0.5, 0.9])))
    assert np.quantile(depth, [0.1, 0.5, 0.9]) == pytest.approx(tenths, abs=0.4)
    beyond = loss - low_loss_db(depth, 3.5)
    assert (beyond.mean(), beyond.std()) == pytest.approx((0.0, 4.4), abs=0.12)


def test_rural_buildings_are_ten_metres_deep():
    plain = CellConfig(path_loss="rma", radius_m=2000.0, shadowing_db=0.0)
    outside, mixed = (
        LargeScale(plain.model_copy(update={"indoor_fraction": share}), 3000, seed=0).at(0)
        for share in (0.0, 1.0)
    )
    drawn = indoors(1.0, 3.5, 3000, seed=0, deepest_m=10.0)
    assert 9.0 < drawn.depth_m.max() < 10.0
    lost_db = 10 * np.log10(outside.mean_gain / mixed.mean_gain)
    assert np.mean(np.isclose(lost_db, drawn.loss_db)) > 0.95


def test_indoor_clients_lose_what_the_wall_takes_and_sight_with_it():
    plain = CellConfig(shadowing_db=0.0)
    outside = LargeScale(plain, 5000, seed=0).at(0)
    mixed = LargeScale(plain.model_copy(update={"indoor_fraction": 0.5}), 5000, seed=0).at(0)
    drawn = indoors(0.5, 3.5, 5000, seed=0)
    same = ~drawn.inside
    assert np.array_equal(mixed.mean_gain[same], outside.mean_gain[same])
    assert np.array_equal(mixed.line_of_sight[same], outside.line_of_sight[same])
    assert not mixed.line_of_sight[drawn.inside].any()
    lost_db = 10 * np.log10(outside.mean_gain / mixed.mean_gain)[drawn.inside]
    hidden = ~outside.line_of_sight[drawn.inside]
    # Whose wall is out of sight from nearer by as well loses exactly the wall's loss; from nearer,
    # some walls are seen that the client's place is not.
    assert 0.8 < np.mean(np.isclose(lost_db, drawn.loss_db[drawn.inside])[hidden]) < 0.99
    assert (lost_db <= drawn.loss_db[drawn.inside] + 1e-9)[hidden].all()


def test_maps_give_neighbours_the_same_sight_and_shadowing():
    points = np.random.default_rng(0).uniform(-140, 140, (4000, 2))
    points = points[np.hypot(*points.T) > 11]
    beside = points + 0.02
    places = np.concatenate([points, beside]).tolist()
    drawn = {"layout": "fixed", "positions_m": places}
    around = {
        mapped: LargeScale(CellConfig(**drawn, shadowing_map=mapped), len(places), 0).at(0)
        for mapped in (False, True)
    }
    differ = {}
    for mapped, seen in around.items():
        here, there = np.split(10 * np.log10(seen.mean_gain), 2)
        differ[mapped] = np.median(np.abs(here - there))
        same = np.mean(np.equal(*np.split(seen.line_of_sight, 2)))
        assert same > 0.97 if mapped else same < 0.9
    assert differ[True] < 0.8 and differ[False] > 3.0
    # The chance of sight stays that of the distance; the cell has few patches of 50 m, so loosely.
    chance = PATH_LOSS["umi"].los_probability(around[True].distance_m).mean()
    assert around[True].line_of_sight.mean() == pytest.approx(chance, abs=0.2)


def test_a_decorrelation_distance_of_ones_own():
    rng = np.random.default_rng(1)
    here = rng.uniform(-15_000, 15_000, (4000, 2))
    there = here + np.array([100.0, 0.0])
    config = CellConfig(
        path_loss="log-distance", shadowing_map=True, decorrelation_m=200.0, layout="fixed",
        positions_m=np.concatenate([here, there]).tolist(), min_distance_m=1.0,
    )  # fmt: skip
    around = LargeScale(config, 8000, seed=2).at(0)
    shadow_db = 10 * np.log10(around.mean_gain) + log_distance_db(around.distance_m)
    one, other = np.split(shadow_db / 8.0, 2)
    assert 0.5 * np.mean((one - other) ** 2) == pytest.approx(1 - np.exp(-0.5), abs=0.03)


def test_indoors_has_a_map_of_its_own():
    config = CellConfig(path_loss="log-distance", shadowing_map=True, radius_m=5000.0)
    outside, inside = (
        LargeScale(config.model_copy(update={"indoor_fraction": share}), 4000, 0).at(0)
        for share in (0.0, 1.0)
    )
    walls_db = indoors(1.0, 3.5, 4000, seed=0).loss_db
    shadow_db = [
        10 * np.log10(around.mean_gain) + log_distance_db(around.distance_m) + lost_db
        for around, lost_db in ((outside, 0.0), (inside, walls_db))
    ]
    assert [np.std(each) for each in shadow_db] == pytest.approx([8.0, 8.0], abs=1.0)
    # 4,000 clients on some 3,000 patches of 50 m: an error of about 0.03.
    assert abs(np.corrcoef(shadow_db)[0, 1]) < 0.1


def test_who_walks_carries_the_place_along():
    config = CellConfig(mobility="random-waypoint", speed_kmh=3.0, round_interval_s=1.0)
    cell = Cell(config, 3000, seed=0)
    rounds = [cell.links(round) for round in (1, 2, 200)]
    gain_db = [10 * np.log10(links.mean_gain) for links in rounds]
    # 0.83 m in a second changes shadowing of 10 to 13 m by sqrt(2 (1 - exp(-0.08))) = 0.4 of it.
    assert 0.2 < np.median(np.abs(gain_db[1] - gain_db[0])) < 3.0
    assert np.median(np.abs(gain_db[2] - gain_db[0])) > 5.0
    seen = [links.line_of_sight for links in rounds]
    assert 0 < np.mean(seen[1] != seen[0]) < 0.06 < np.mean(seen[2] != seen[0])
    again = Cell(config, 3000, seed=0).links(200)
    assert np.array_equal(again.gain, rounds[2].gain)
    assert np.array_equal(again.line_of_sight, rounds[2].line_of_sight)
