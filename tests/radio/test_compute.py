import pytest

from airtune.radio.compute import DEVICES, Passes, compute_joules, compute_seconds


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
