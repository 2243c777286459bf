import pytest

from airtune.radio.compute import (
    DEVICES,
    DeviceProfile,
    Passes,
    compute_joules,
    compute_seconds,
)
from airtune.radio.config import CellConfig


def test_flops_per_token():
    assert Passes(10**6, 10**6, 10**6).training(10) == 6e7
    assert Passes(10**6, 10**6).training(10) == 4e7
    assert Passes(10**6, 10**5).training(10) == 2e7 + 2e6
    assert Passes(10**6, 2 * 10**5, 10**5).training([1, 10]).tolist() == [2.6e6, 2.6e7]
    assert Passes(10**6, 10**5, 10**5).inference(10) == 2e7


def test_clients_take_devices_in_turn():
    devices = (DEVICES["phone"], DEVICES["edge-gpu"])
    seconds = compute_seconds(devices, [0, 1, 2], 6e12)
    # 6e12 / (2e12 * 0.3) and 6e12 / (4e13 * 0.4)
    assert seconds == pytest.approx([10.0, 0.375, 10.0])
    assert compute_joules(devices, [0, 1, 2], 6e12) == pytest.approx([50.0, 18.75, 50.0])


def test_cycles_by_hand():
    # 1000 samples of 2e4 cycles at 1 GHz: 0.02 s, and 1e-28 (1e9)^2 2e7 = 2 mJ.
    device = DeviceProfile(cycles={"frequency_hz": 1e9, "flops_per_cycle": 8})
    work = 1000 * 2e4 * 8.0
    assert compute_seconds((device,), 0, work) == pytest.approx(0.02)
    assert compute_joules((device,), 0, work) == pytest.approx(2e-3)


def test_a_faster_clock_costs_its_square():
    slow, fast = (
        DeviceProfile(cycles={"frequency_hz": f, "flops_per_cycle": 4, "kappa": 1e-27})
        for f in (1e9, 3e9)
    )
    devices = (slow, fast, DEVICES["phone"])
    assert compute_seconds(devices, [0, 1, 2], 12e9) == pytest.approx([3.0, 1.0, 0.02])
    assert compute_joules(devices, [0, 1, 2], 12e9) == pytest.approx([3.0, 27.0, 0.1])


def test_one_description_of_a_device_and_all_of_it():
    cycles = {"frequency_hz": 1e9, "flops_per_cycle": 8}
    cell = CellConfig(devices=[{"cycles": cycles}, "phone"])
    assert CellConfig.model_validate(cell.model_dump()) == cell
    for half in ({}, {"peak_flops": 1e12}, {"power_w": 3.0}):
        with pytest.raises(ValueError, match="needs both peak_flops and power_w, or cycles"):
            CellConfig(devices=half)
    for more in ({"peak_flops": 1e12}, {"power_w": 3.0}, {"utilisation": 0.5}):
        with pytest.raises(ValueError, match="a device with cycles has no peak_flops"):
            CellConfig(devices={"cycles": cycles, **more})
