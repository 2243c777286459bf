import dataclasses

import numpy as np
import pytest

from airtune.radio.cell import Cell, likely_snr_hz
from airtune.radio.config import CellConfig

SLOW = CellConfig(speed_kmh=0.3, round_interval_s=0.1, fading="rayleigh")


def same(a, b):
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
    )


@pytest.mark.parametrize("config", [CellConfig(), SLOW, CellConfig(ideal=True)])
def test_a_round_is_the_same_fresh_stepped_or_revisited(config):
    stepped = Cell(config, 50, seed=3)
    rounds = [stepped.links(r) for r in range(6)]
    assert same(rounds[5], Cell(config, 50, seed=3).links(5))
    assert same(rounds[2], stepped.links(2))
    assert same(rounds[5], stepped.links(5))


def test_seeds_differ():
    assert not same(Cell(SLOW, 5, seed=0).links(0), Cell(SLOW, 5, seed=1).links(0))


def test_fading_moves_and_the_rest_stays():
    cell = Cell(SLOW, 5000, seed=0)
    first, second = cell.links(0), cell.links(1)
    assert np.array_equal(first.mean_gain, second.mean_gain)
    power = [links.gain / links.mean_gain for links in (first, second)]
    # Rayleigh powers correlate by rho^2, here J0(2 pi 0.973 Hz 0.1 s)^2 = 0.823.
    assert np.corrcoef(power)[0, 1] == pytest.approx(0.823, abs=0.03)


def test_snr_by_hand_without_randomness():
    config = CellConfig(
        path_loss="log-distance", shadowing_db=0.0, fading="none", csi="statistical"
    )
    links = Cell(config, 4, seed=0).links(0)
    loss_db = 128.1 + 37.6 * np.log10(links.distance_m / 1e3)
    # 23 dBm up against -169 dBm/Hz; 33 dBm down against -165 dBm/Hz.
    assert 10 * np.log10(links.snr_hz) == pytest.approx(192.0 - loss_db)
    assert 10 * np.log10(links.downlink_snr_hz) == pytest.approx(198.0 - loss_db)
    assert links.planned_snr_hz == pytest.approx(links.snr_hz / 10)


def test_perfect_csi_plans_with_the_truth():
    links = Cell(CellConfig(), 20, seed=0).links(3)
    assert np.array_equal(links.planned_snr_hz, links.snr_hz)
    assert links.line_of_sight.any() and not links.line_of_sight.all()
    assert len(links) == 20


def test_only_clients_in_sight_have_a_fixed_path():
    config = CellConfig(rician_k_db=40.0)
    links = Cell(config, 2000, seed=0).links(0)
    power = links.gain / links.mean_gain
    assert power[links.line_of_sight].std() < 0.05
    assert power[~links.line_of_sight].std() == pytest.approx(1.0, abs=0.1)


def test_margin_gives_the_outage_of_the_formula():
    config = CellConfig(fading="rayleigh", csi="statistical", fade_margin_db=10.0)
    links = Cell(config, 40_000, seed=0).links(0)
    assert np.mean(links.snr_hz < links.planned_snr_hz) == pytest.approx(
        1 - np.exp(-0.1), abs=0.005
    )


def test_ideal_links_are_infinite():
    links = Cell(CellConfig.model_validate("ideal"), 3, seed=0).links(0)
    assert np.isinf(links.snr_hz).all() and np.isinf(links.planned_snr_hz).all()


@pytest.mark.parametrize("path_loss", ["log-distance", "free-space", "umi"])
def test_walls_leave_no_fixed_path(path_loss):
    """Rician clients indoors fade as Rayleigh ones do, whatever the model knows of sight."""
    config = CellConfig(
        path_loss=path_loss, indoor_fraction=0.5, shadowing_db=0.0, rician_k_db=15.0
    )
    links = Cell(config, 20_000, seed=0).links(1)
    power = links.gain / links.mean_gain
    assert links.indoors.mean() == pytest.approx(0.5, abs=0.02)
    assert not (links.indoors & links.line_of_sight).any()
    assert power[links.indoors].std() == pytest.approx(1.0, abs=0.05)
    outside = ~links.indoors & (links.line_of_sight | (path_loss != "umi"))
    k = 10**1.5
    assert power[outside].std() == pytest.approx(np.sqrt(1 + 2 * k) / (1 + k), abs=0.02)
    likely = likely_snr_hz(config, links, np.arange(200), 500) / links.mean_snr_hz[:200, None]
    assert likely[links.indoors[:200]].std() == pytest.approx(1.0, abs=0.02)
    assert likely[outside[:200]].std() < 0.3


def test_an_snr_of_one_value_is_its_own_mean():
    config = CellConfig(snr_db=(7.0, 7.0))
    links = Cell(config, 4, seed=0).links(2)
    assert np.array_equal(links.mean_snr_hz, links.snr_hz)
    nearly = Cell(CellConfig(snr_db=(7.0, 7.0 + 1e-9)), 4, seed=0).links(2)
    assert nearly.mean_snr_hz == pytest.approx(links.mean_snr_hz, rel=1e-8)


def test_snr_may_be_drawn_uniformly_instead_of_from_places_and_fading():
    config = CellConfig(snr_db=(0.0, 20.0), bandwidth_hz=6e6, allocation="equal")
    cell = Cell(config, 30, seed=0)
    rounds = [cell.links(round) for round in range(200)]
    # Over an equal share of the band: 200 kHz each.
    drawn = 10 * np.log10(np.array([links.snr_hz / 200e3 for links in rounds]))
    assert drawn.min() >= 0.0 and drawn.max() <= 20.0
    assert np.histogram(drawn, bins=10, range=(0, 20))[0] == pytest.approx(600, rel=0.2)
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.05
    assert np.array_equal(rounds[7].snr_hz, Cell(config, 30, seed=0).links(7).snr_hz)
    # (100 - 1) / ln 100 = 21.5, where the middle of the range in dB would be 10.
    mean = rounds[0].mean_snr_hz / 200e3
    assert mean == pytest.approx(np.full(30, 99 / np.log(100)))
    seen = np.mean([links.snr_hz for links in rounds]) / 200e3
    assert seen == pytest.approx(mean[0], rel=4 * 26.3 / 21.5 / np.sqrt(6000))
    likely = likely_snr_hz(config, rounds[0], np.arange(3), 5000) / 200e3
    assert 10 * np.log10(likely[2]) == pytest.approx((np.arange(5000) + 0.5) / 250)
    assert likely.mean() == pytest.approx(mean[0], rel=1e-6)
    assert np.isfinite(rounds[0].downlink_snr_hz).all()
    assert np.array_equal(rounds[3].planned_snr_hz, rounds[3].snr_hz)
