import pytest
from pydantic import ValidationError

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
