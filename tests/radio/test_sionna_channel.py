"""Propagation and fading against Sionna's TR 38.901 models.

Losses, chances and table values are computed by both, and differ by single precision: 2e-3 dB,
1e-5. Where a side draws, the bound is five standard deviations of the estimate.
"""

import numpy as np
import pytest
from scipy.special import j0

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.fading import doppler_hz, jakes_correlation
from airtune.radio.indoors import indoors, low_loss_db
from airtune.radio.path_loss import INDOORS, PATH_LOSS
from airtune.radio.small_scale import SmallScale

pytest.importorskip("sionna", reason="Sionna is not installed: pip install 'airtune[sionna]'")

HEIGHTS_M = {"umi": (10, 1.5), "uma": (25, 1.5), "rma": (35, 1.5), "inh": (3, 1)}
DISTANCES_M = {
    "umi": np.geomspace(10, 2000, 60),
    "uma": np.geomspace(10, 3000, 60),
    "rma": np.geomspace(10, 9000, 60),
    "inh-mixed": np.geomspace(1, 140, 60),
    "inh-open": np.geomspace(1, 140, 60),
}
SF, K = 3, 4  # places in Sionna's list of large-scale parameters, which has tens of dB


def dropped(name, distance_m, carrier_ghz, los, indoor=False, depth_m=None, apart=False):
    """Return Sionna's model with clients at these distances, ``apart`` in a drop of each own."""
    import torch
    from sionna.phy.channel.tr38901 import InH, PanelArray, RMa, UMa, UMi

    antenna = PanelArray(
        num_rows_per_panel=1, num_cols_per_panel=1, polarization="single",
        polarization_type="V", antenna_pattern="omni", carrier_frequency=carrier_ghz * 1e9,
        device="cpu",
    )  # fmt: skip
    common = {
        "carrier_frequency": carrier_ghz * 1e9, "ut_array": antenna, "bs_array": antenna,
        "direction": "uplink", "device": "cpu",
    }  # fmt: skip
    kind, _, office = name.partition("-")
    if kind == "inh":
        model = InH(indoor_scenario=office, **common)
    elif kind == "rma":
        model = RMa(**common)
    else:
        model = (UMi if kind == "umi" else UMa)(o2i_model="low", **common)
    base, client = HEIGHTS_M[kind]
    shape = (distance_m.size, 1) if apart else (1, distance_m.size)
    place = np.stack([distance_m, 0 * distance_m, np.full(distance_m.size, client)], -1)
    towers = np.tile([0.0, 0.0, base], (shape[0], 1, 1))

    def tensor(values):
        return torch.tensor(np.asarray(values), dtype=torch.float32)

    depths = {} if depth_m is None else {"distance_2d_in": tensor(depth_m.reshape(shape))}
    model.set_topology(
        tensor(place.reshape(*shape, 3)), tensor(towers), torch.zeros(*shape, 3),
        torch.zeros(shape[0], 1, 3), torch.zeros(*shape, 3),
        torch.full(shape, indoor or kind == "inh", dtype=torch.bool), los=los, **depths,
    )  # fmt: skip
    return model


def numbers(tensor):
    return tensor.cpu().numpy().astype(np.float64)


@pytest.mark.parametrize("los", [True, False])
@pytest.mark.parametrize("carrier_ghz", [0.9, 3.5, 6.0])
@pytest.mark.parametrize("name", DISTANCES_M)
def test_path_loss(name, carrier_ghz, los):
    distance = DISTANCES_M[name]
    theirs = numbers(dropped(name, distance, carrier_ghz, los)._scenario.basic_pathloss)[0, 0]
    ours = PATH_LOSS[name].loss_db(distance, carrier_ghz, np.full(distance.size, los))
    assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("name", DISTANCES_M)
def test_chance_of_sight(name):
    distance = DISTANCES_M[name]
    theirs = numbers(dropped(name, distance, 3.5, None)._scenario.los_probability)[0, 0]
    assert PATH_LOSS[name].los_probability(distance) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("los", [True, False])
@pytest.mark.parametrize("name", DISTANCES_M)
def test_shadowing_and_what_it_forgets_over(name, los):
    distance, model = DISTANCES_M[name], PATH_LOSS[name]
    scenario = dropped(name, distance, 3.5, los)._scenario
    theirs = 10 * numbers(scenario.lsp_log_std)[0, 0, :, SF]
    where = np.full(distance.size, 0 if los else 1)
    assert model.spread_db(distance, 3.5, where) == pytest.approx(theirs, abs=1e-5)
    apart = numbers(scenario.get_param("corrDistSF"))[0, 0]
    assert apart == pytest.approx(np.full(60, model.decorrelation_m[where[0]]))


@pytest.mark.parametrize("name", ["umi", "uma", "rma"])
def test_shadowing_indoors(name):
    distance = np.array([50.0, 100.0])
    scenario = dropped(name, distance, 3.5, False, indoor=True)._scenario
    theirs = 10 * numbers(scenario.lsp_log_std)[0, 0, :, SF]
    assert theirs == pytest.approx(np.full(2, PATH_LOSS[name].shadowing_indoor_db))
    apart = numbers(scenario.get_param("corrDistSF"))[0, 0]
    assert apart == pytest.approx(np.full(2, PATH_LOSS[name].decorrelation_m[INDOORS]))


@pytest.mark.parametrize("name, theirs_spread_db", [("umi", 5.0), ("uma", 3.5)])
def test_the_rician_factor_is_their_mean(name, theirs_spread_db):
    scenario = dropped(name, np.array([40.0, 90.0]), 3.5, True)._scenario
    mean, spread = (10 * numbers(each)[0, 0, 0, K] for each in (
        scenario.lsp_log_mean, scenario.lsp_log_std))  # fmt: skip
    assert CellConfig().rician_k_db == pytest.approx(mean, abs=1e-5)
    # Ours is one number for all clients: this is what is left out.
    assert spread == pytest.approx(theirs_spread_db, abs=1e-5)


def test_walls():
    # Below 6 GHz Sionna takes the 20 dB of older models for UMi and UMa, which we do not have.
    count, carrier_ghz = 2000, 7.0
    depth = np.tile(np.linspace(0.0, 25.0, 100), 20)
    model = dropped(
        "umi", np.full(count, 100.0), carrier_ghz, False, indoor=True, depth_m=depth, apart=True
    )
    basic = numbers(model._scenario.basic_pathloss)
    loss = (numbers(model._lsp_sampler.sample_pathloss()) - basic)[:, 0, 0]
    beyond = loss - low_loss_db(depth, carrier_ghz)
    assert beyond.mean() == pytest.approx(0.0, abs=5 * 4.4 / np.sqrt(count))
    ours = indoors(1.0, carrier_ghz, count, 0)
    spread = (ours.loss_db - low_loss_db(ours.depth_m, carrier_ghz)).std()
    assert beyond.std() == pytest.approx(spread, abs=5 * 4.4 / np.sqrt(count))


def test_a_cell_draws_sight_and_shadowing_as_sionna_has_them():
    count, at_m = 4000, 60.0
    place = at_m * np.exp(2j * np.pi * np.arange(count) / count)
    config = CellConfig(
        layout="fixed", positions_m=tuple((z.real, z.imag) for z in place), path_loss="umi"
    )
    cell = Cell(config, count, seed=1)
    scenario = dropped("umi", np.array([at_m]), 3.5, None)._scenario
    chance = float(numbers(scenario.los_probability)[0, 0, 0])
    error = 5 * np.sqrt(chance * (1 - chance) / count)
    assert cell.line_of_sight.mean() == pytest.approx(chance, abs=error)
    for los in (True, False):
        scenario = dropped("umi", np.array([at_m]), 3.5, los)._scenario
        spread = 10 * float(numbers(scenario.lsp_log_std)[0, 0, 0, SF])
        loss_db = -10 * np.log10(cell.mean_gain[cell.line_of_sight == los])
        error = 5 * spread / np.sqrt(loss_db.size)
        assert loss_db.mean() == pytest.approx(
            float(numbers(scenario.basic_pathloss)[0, 0, 0]), abs=error
        )
        assert loss_db.std() == pytest.approx(spread, abs=error)


def test_fading_forgets_as_a_tapped_delay_line_does():
    from sionna.phy.channel.tr38901 import TDL

    drops, interval_s = 1500, 0.01
    line = TDL("A", 100e-9, 3.5e9, min_speed=3 / 3.6, max_speed=3 / 3.6, device="cpu")
    taps = line(drops, 4, 1 / interval_s)[0].cpu().numpy()[:, 0, 0, 0, 0]  # [drops, taps, times]
    taps = taps / np.sqrt((np.abs(taps) ** 2).mean((0, 2), keepdims=True))
    theirs = (taps[..., :1].conj() * taps).real.mean((0, 1))
    # Of a product of unit coefficients the real part has a variance of one at most.
    error = 5 / np.sqrt(taps.shape[0] * taps.shape[1])
    shift = doppler_hz(3.0, 3.5)
    lags = interval_s * np.arange(4)
    assert theirs == pytest.approx(j0(2 * np.pi * shift * lags), abs=error)
    ours = [jakes_correlation(shift, lag) for lag in lags]
    assert ours == pytest.approx(theirs, abs=error)

    config = CellConfig(speed_kmh=3.0, round_interval_s=interval_s, fading="rayleigh")
    fading = SmallScale(config, 20_000, seed=0)
    out = np.zeros(20_000, dtype=bool)
    now, later = fading.power(0, out, out), fading.power(1, out, out)
    # Powers of Rayleigh fading correlate by the square of what coefficients do.
    assert np.corrcoef(now, later)[0, 1] == pytest.approx(theirs[1] ** 2, abs=error + 0.05)
    power = np.abs(taps[..., 0]) ** 2
    for level in (0.1, 1.0, 3.0):
        assert (power < level).mean() == pytest.approx((now < level).mean(), abs=error)
