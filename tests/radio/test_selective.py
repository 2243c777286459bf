"""Fading over frequency against its correlations, and one number against all blocks."""

import tracemalloc

import numpy as np
import pytest
from pydantic import ValidationError

from airtune.build import build
from airtune.experiment import Experiment
from airtune.radio.cell import Cell, Links, likely_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.rate import RateModel, rate_bps
from airtune.radio.selective import Selective, effective_power
from airtune.radio.small_scale import k_factor
from airtune.radio.taps import exponential_taps

BLOCK_HZ = 180e3


def config_of(delay_spread_ns=300.0, **changes):
    base = {"delay_spread_ns": delay_spread_ns, "fading": "rayleigh", "bandwidth_hz": 20e6}
    return CellConfig(**{**base, **changes})


def powers_of(config, clients=2000, round=0, seed=0):
    sight = np.ones(clients, dtype=bool)
    parts = Selective(config, clients, seed).powers(round, k_factor(config, sight, ~sight))
    return np.concatenate([powers for _, powers in parts])


@pytest.mark.parametrize("bandwidth_hz", [1e6, 20e6, 100e6])
@pytest.mark.parametrize("spread_ns", [1.0, 30.0, 100.0, 300.0, 800.0])
def test_taps_have_the_correlation_of_the_exponential_profile(spread_ns, bandwidth_hz):
    taps = exponential_taps(spread_ns * 1e-9, bandwidth_hz)
    apart = np.linspace(0.0, bandwidth_hz, 300)
    turned = np.exp(-2j * np.pi * apart[:, None] * taps.delays_s)
    expected = 1 / (1 + 2j * np.pi * apart * spread_ns * 1e-9)
    assert np.abs(turned @ taps.powers - expected).max() < 0.01
    assert taps.powers.sum() == pytest.approx(1.0)
    mean = taps.powers @ taps.delays_s
    spread = np.sqrt(taps.powers @ taps.delays_s**2 - mean**2)
    assert spread == pytest.approx(spread_ns * 1e-9, rel=0.02)


@pytest.mark.parametrize("spread_ns", [50.0, 300.0])
def test_powers_of_blocks_correlate_as_they_should(spread_ns):
    # Rayleigh powers correlate by the square of the coefficients' correlation.
    powers = powers_of(config_of(spread_ns), clients=20_000)
    assert powers.shape == (20_000, 111)
    assert powers.mean(0) == pytest.approx(1.0, abs=4 / np.sqrt(20_000))
    assert np.mean(powers > 2.0, axis=0) == pytest.approx(np.exp(-2.0), abs=0.01)
    found = np.corrcoef(powers[:, :40].T)[0]
    expected = 1 / (1 + (2 * np.pi * np.arange(40) * BLOCK_HZ * spread_ns * 1e-9) ** 2)
    assert found == pytest.approx(expected, abs=0.03)


def test_half_the_correlation_by_hand():
    # 2 pi df tau = 1 at 180 kHz and 884.2 ns: powers correlate by 1/2.
    powers = powers_of(config_of(884.0), clients=20_000)
    assert np.corrcoef(powers[:, 50], powers[:, 51])[0, 1] == pytest.approx(0.5, abs=0.02)


def test_a_fixed_path_is_flat():
    k = 10**0.9
    config = config_of(fading="rician", rician_k_db=9.0, path_loss="free-space")
    powers = powers_of(config, clients=5000)
    assert powers.mean() == pytest.approx(1.0, abs=0.01)
    assert powers.var() == pytest.approx((2 * k + 1) / (k + 1) ** 2, rel=0.05)
    # Out of sight there is none.
    hidden = config_of(fading="rician", path_loss="umi")
    nobody = np.zeros(2000, dtype=bool)
    factors = k_factor(hidden, nobody, nobody)
    _, scattered = next(Selective(hidden, 2000, 0).powers(0, factors))
    assert scattered.var() == pytest.approx(1.0, abs=0.1)
    strong = powers_of(config.model_copy(update={"rician_k_db": 40.0}))
    assert np.ptp(strong, axis=1).max() < 0.15


def test_links_of_clients_indoors_have_no_fixed_path():
    config = config_of(
        fading="rician", rician_k_db=30.0, path_loss="free-space", indoor_fraction=0.5
    )
    links = Cell(config, 400, seed=0).links(0)
    assert 150 < links.indoors.sum() < 250
    blocks = links.block_snr_hz(np.arange(400)) / links.mean_snr_hz[:, None]
    spread = blocks.std(1)
    # K = 1000 leaves each block within a few percent of the mean; Rayleigh ones spread by 1.
    assert spread[~links.indoors].max() < 0.15 < spread[links.indoors].min()
    usual = likely_snr_hz(config, links, np.arange(400), 50) / links.mean_snr_hz[:, None]
    assert (np.ptp(usual[~links.indoors], axis=1) < 0.1).all()
    assert (np.ptp(usual[links.indoors], axis=1) > 0.1).all()


def test_rounds_remember_each_other_as_with_flat_fading():
    slow = config_of(speed_kmh=0.3, round_interval_s=0.1)
    cell = Selective(slow, 1200, 0)
    k = np.zeros(1200)
    rounds = [np.concatenate([p for _, p in cell.powers(r, k)]) for r in (0, 1, 2, 1)]
    # J0(2 pi 0.973 Hz 0.1 s)^2 = 0.823.
    correlation = np.corrcoef(rounds[0].ravel(), rounds[1].ravel())[0, 1]
    assert correlation == pytest.approx(0.823, abs=0.02)
    assert np.array_equal(rounds[1], rounds[3])
    assert np.array_equal(rounds[2], powers_of(slow, 1200, round=2))
    forgetful = [powers_of(config_of(), 1200, round) for round in (0, 1)]
    assert np.corrcoef(forgetful[0].ravel(), forgetful[1].ravel())[0, 1] == pytest.approx(
        0, abs=0.02
    )


def test_the_effective_power_by_hand():
    shannon = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)
    # SNRs of 0.5 and 1.5 on average carry what sqrt(1.5 * 2.5) - 1 does.
    found = effective_power([1e6], np.array([[0.5, 1.5]]), 1e6, shannon)
    assert found == pytest.approx([0.936492], abs=1e-6)
    assert effective_power([3e7], np.full((1, 9), 0.7), 1e6, RateModel()) == pytest.approx([0.7])
    powers = powers_of(config_of(), clients=300)
    wide, narrow = (
        effective_power(np.full(300, 1e6), powers, share, shannon) for share in (1e12, 1e-3)
    )
    assert wide == pytest.approx(powers.mean(1), rel=1e-5)
    assert narrow == pytest.approx(np.exp(np.log(powers).mean(1)), rel=0.1)
    assert (narrow < wide).all()


@pytest.mark.parametrize("snr", [0.5, 5.0, 50.0])
def test_at_its_share_one_number_carries_what_the_blocks_do(snr):
    model = RateModel(gap_db=2.0, max_efficiency=100.0, min_snr_db=-30.0)
    powers, share = powers_of(config_of(), clients=500), 1.3e6
    blocks = rate_bps(share, snr * share * powers, model).mean(1)
    flat = effective_power(np.full(500, snr * share), powers, share, model) * snr * share
    assert rate_bps(share, flat, model) == pytest.approx(blocks, rel=1e-7)


@pytest.mark.parametrize(
    ("fading", "within_4", "within_16"), [("rayleigh", 0.12, 0.22), ("rician", 0.04, 0.07)]
)
@pytest.mark.parametrize("spread_ns", [100.0, 300.0])
def test_at_other_shares_the_error_is_what_is_stated(fading, spread_ns, within_4, within_16):
    """Of the mean rate, with cap and least SNR: -5 to 30 dB at the share where it is equal."""
    model, share = RateModel(), 2e6
    powers = powers_of(config_of(spread_ns, fading=fading, path_loss="free-space"), clients=400)
    worst = {4: 0.0, 16: 0.0}
    for snr in 10 ** (np.arange(-5, 31, 2.5) / 10) * share:
        flat = effective_power(np.full(400, snr), powers, share, model) * snr
        for times in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16):
            blocks = rate_bps(times * share, snr * powers, model).mean(1)
            error = abs(rate_bps(times * share, flat, model).mean() / blocks.mean() - 1)
            for reach in (4, 16):
                if 1 / reach <= times <= reach:
                    worst[reach] = max(worst[reach], error)
    assert worst[4] < within_4 and worst[16] < within_16
    # The bounds are no wider than they need be.
    assert worst[16] > 0.4 * within_16


def test_links_stand_for_their_blocks():
    config = config_of(speed_kmh=0.3, round_interval_s=0.1, downlink_bandwidth_hz=10e6)
    links = Cell(config, 700, seed=4, sharing=7).links(3)
    assert links.equivalent_hz == pytest.approx(20e6 / 7)
    powers = powers_of(config, 700, round=3, seed=4)
    for snr_hz, per_gain, share in (
        (links.snr_hz, config.power_w / config.noise_w_per_hz, 20e6 / 7),
        (
            links.downlink_snr_hz,
            config.base_station_power_w / config.client_noise_w_per_hz,
            10e6,
        ),
    ):
        level = per_gain * links.mean_gain / (share * 10**0.2)
        mean = np.log2(1 + powers * level[:, None]).mean(1)
        expected = (2**mean - 1) * share * 10**0.2
        assert snr_hz == pytest.approx(expected, rel=1e-9)
    assert np.array_equal(links.planned_snr_hz, links.snr_hz)
    assert type(Cell(CellConfig(), 7, seed=4).links(3)) is Links


def test_a_short_delay_spread_is_flat_fading():
    # 1 ns over 20 MHz: 2 pi B tau = 0.13.
    links = Cell(config_of(1.0), 20_000, seed=0).links(1)
    power = links.gain / links.mean_gain
    assert power.mean() == pytest.approx(1.0, abs=0.03)
    assert np.mean(power > 2.0) == pytest.approx(np.exp(-2.0), abs=0.01)
    # A long one averages over the band: deep fades of all of it are rare.
    wide = Cell(config_of(300.0), 20_000, seed=0).links(1)
    assert np.mean(wide.gain / wide.mean_gain < 0.2) < 0.001 < np.mean(power < 0.2)


@pytest.mark.parametrize("fading", ["rayleigh", "rician"])
def test_likely_links_are_those_that_rounds_bring(fading):
    cell = Cell(config_of(100.0, fading=fading), 30, seed=1)
    rounds = np.array([cell.links(round).snr_hz for round in range(400)])
    found = likely_snr_hz(cell.config, cell.links(0), np.arange(30), 400)
    assert found.shape == (30, 400) and (np.diff(found, axis=1) >= 0).all()
    assert (found.mean(1) / rounds.mean(0)).mean() == pytest.approx(1.0, abs=0.03)
    for share in (0.1, 0.5, 0.9):
        ratio = np.quantile(found, share, axis=1) / np.quantile(rounds, share, axis=0)
        assert ratio.mean() == pytest.approx(1.0, abs=0.06)


def test_blocks_of_all_clients_are_never_in_memory_together():
    cell = Cell(config_of(), 10_000, seed=0)
    tracemalloc.start()
    cell.links(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * 10_000 * 111 * 16


def test_a_run_stands_for_blocks_at_the_share_of_those_asked(small):
    values = small(cell={"delay_spread_ns": 100}, clients={"per_round": 2})
    assert build(Experiment(**values)).cell.links(0).equivalent_hz == pytest.approx(10e6)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ideal": True}, "an ideal cell has no fading; leave delay_spread_ns out"),
        ({"snr_db": (0, 10)}, "snr_db says what the SNR is; leave delay_spread_ns out"),
        ({"fading": "nakagami"}, "fading nakagami has no paths"),
        ({"fading": "none"}, "fading none has no paths"),
        ({"delay_spread_ns": 900.0}, "of 180000 Hz, which it is up to 884 ns only"),
        ({"delay_spread_ns": 0.0}, "greater than 0"),
    ],
)
def test_what_does_not_go_together_is_named(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        config_of(**{"delay_spread_ns": 100.0, **keys})
