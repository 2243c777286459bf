import numpy as np
import pytest
from pydantic import ValidationError

from airtune.radio.cell import Cell
from airtune.radio.config import PRESETS, CellConfig, resolve_cell


@pytest.mark.parametrize("preset", PRESETS)
def test_dump_and_validate_return_the_same_cell(preset):
    cell = CellConfig.model_validate(preset)
    assert cell.preset == preset
    assert CellConfig.model_validate(cell.model_dump()) == cell
    assert CellConfig.model_validate_json(cell.model_dump_json()) == cell


def test_explicit_keys_override_the_preset():
    cell = CellConfig.model_validate({"preset": "urban-macro", "bandwidth_hz": 5e6})
    assert (cell.path_loss, cell.bandwidth_hz, cell.radius_m) == ("uma", 5e6, 500.0)
    back = CellConfig.model_validate({**cell.model_dump(), "radius_m": 300.0})
    assert back.radius_m == 300.0


def test_the_plain_cell_is_the_street_canyon():
    named = CellConfig.model_validate("urban-micro")
    assert CellConfig().model_dump(exclude={"preset"}) == named.model_dump(exclude={"preset"})


def test_scenarios_have_the_area_of_a_base_station_of_the_standard():
    rural, office = (CellConfig.model_validate(name) for name in ("rural-macro", "indoor-office"))
    # Sites 1732 m apart share the plane in hexagons of sqrt(3)/2 x 1732^2 m^2, twelve the hall.
    spot = Cell(rural, 100_000, seed=0).distance_m
    assert 1.5 * np.sqrt(3) * rural.radius_m**2 == pytest.approx(np.sqrt(0.75) * 1732**2, rel=1e-3)
    assert spot.max() == pytest.approx(1000.0, rel=0.01)
    # The mean distance in a hexagon is 0.6080 of its corners', 608.9 m without the middle (by an
    # integral over its triangles); three standard errors are 2.3 m.
    assert spot.mean() == pytest.approx(608.9, abs=2.3)
    assert np.pi * office.radius_m**2 == pytest.approx(120 * 50 / 12, rel=0.01)
    assert (rural.layout, rural.path_loss, rural.min_distance_m) == ("hexagon", "rma", 35.0)
    assert (office.layout, office.path_loss) == ("disc", "inh-mixed")


@pytest.mark.parametrize(
    "name, distance_m, seen_db, hidden_db",
    [
        # 23 dBm over 1 MHz at -169 dBm/Hz leaves 0 dB at a loss of 132 dB. In sight of a mast of
        # 35 m at 0.7 GHz the loss is 70.22 dB; out of sight 78.69 dB.
        ("rural-macro", 100.0, 61.78, 53.31),
        # 128.99 dB over 2 MHz; below a ceiling at 4 GHz 32.4 + 17.3 log10(8.246) + 12.04 = 60.29
        # and 17.3 + 38.3 log10(8.246) + 24.9 log10(4) = 67.38 dB.
        ("indoor-office", 8.0, 68.70, 61.61),
    ],
)
def test_link_budgets_of_scenarios_by_hand(name, distance_m, seen_db, hidden_db):
    still = {"layout": "fixed", "shadowing_db": 0.0, "fading": "none"}
    spots = ((distance_m, 0.0),) * 200
    cell = CellConfig.model_validate({"preset": name, "positions_m": spots, **still})
    links = Cell(cell, 200, seed=0).links(1)
    snr_db = 10 * np.log10(links.snr_hz / (cell.bandwidth_hz / 10))
    assert 0 < links.line_of_sight.sum() < 200
    assert snr_db[links.line_of_sight] == pytest.approx(seen_db, abs=0.01)
    assert snr_db[~links.line_of_sight] == pytest.approx(hidden_db, abs=0.01)


def test_devices_by_name_or_inline():
    assert [d.name for d in CellConfig(devices="laptop").devices] == ["laptop"]
    mixed = CellConfig(devices=["phone", {"peak_flops": 1e12, "power_w": 3.0}])
    assert [d.name for d in mixed.devices] == ["phone", "custom"]


@pytest.mark.parametrize(
    "wrong, hint",
    [
        ("urban-mikro", "did you mean 'urban-micro'"),
        ({"devices": "fone"}, "did you mean 'phone'"),
        ({"min_distance_m": 300.0}, "must be below"),
        ({"bandwidth_hz": 1e5}, "narrower than one resource block"),
        ({"packet_error": 1.0}, "less than 1"),
        ({"allocation": "min-energy"}, "set deadline_s"),
        ({"late": "wait"}, "late: wait is for uploads that miss the deadline; set deadline_s"),
        (
            {"allocation": "min-energy", "deadline_s": 1.0, "rate": {"law": "mcs"}},
            "Shannon's law only",
        ),
        ({"bandwith_hz": 1e6}, "Extra inputs"),
        ({"rate": {"resource_block_hz": 1e-9}}, "greater than or equal to 1000"),
        ({"log_distance_reference_db": 1e300}, "less than or equal to 300"),
        ({"log_distance_reference_db": -1.0}, "greater than or equal to 0"),
        ({"decorrelation_m": 1e-12}, "greater than or equal to 0.1"),
    ],
)
def test_mistakes_are_named(wrong, hint):
    with pytest.raises(ValidationError, match=hint):
        CellConfig.model_validate(wrong)


def test_unknown_preset_outside_pydantic():
    with pytest.raises(ValueError, match="legacy-macro"):
        resolve_cell("legacy")


def test_powers_and_noise_in_watts():
    cell = CellConfig()
    assert cell.power_w == pytest.approx(0.19953, rel=1e-4)
    # -169 dBm/Hz over 180 kHz is -116.4 dBm.
    assert cell.noise_w_per_hz * 180e3 == pytest.approx(10 ** (-146.447 / 10), rel=1e-3)
