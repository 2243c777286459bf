"""Seconds and joules of training on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from airtune.config import Config
from airtune.radio.units import Floats


@dataclass(frozen=True)
class Passes:
    """How many parameters a token passes: forward, backward, and with a gradient of their own.

    Each costs 2 floating-point operations a pass (DERIVED; products of attention's own entries and
    of what an adapter adds are left out). A whole model that trains is (P, P, P), 6 P a token; an
    adapter in all layers spares only the last, (P, P), so its computing costs at least two thirds;
    layers from the top are (P, R, T), where gradients go through the R parameters from the first
    of these layers to the output and T of them train.
    """

    forward: int
    backward: int
    weights: int = 0

    def training(self, tokens: ArrayLike) -> Floats:
        """Return the floating-point operations of training on ``tokens`` tokens."""
        return 2.0 * (self.forward + self.backward + self.weights) * np.asarray(tokens)

    def inference(self, tokens: ArrayLike) -> Floats:
        """Return those of a forward pass alone."""
        return 2.0 * self.forward * np.asarray(tokens)


class DeviceProfile(Config):
    """A client's computer, reduced to what its time and energy depend on."""

    name: str = Field("custom", description="for reports")
    peak_flops: float = Field(gt=0, description="floating-point operations per second at best")
    utilisation: float = Field(0.3, gt=0, le=1, description="share of the peak that training gets")
    power_w: float = Field(ge=0, description="draw while computing")


# Orders of magnitude of today's half-precision accelerators: UNVERIFIED, meant to be overridden.
DEVICES: dict[str, DeviceProfile] = {
    "phone": DeviceProfile(name="phone", peak_flops=2e12, utilisation=0.3, power_w=5.0),
    "laptop": DeviceProfile(name="laptop", peak_flops=1e13, utilisation=0.3, power_w=40.0),
    "edge-gpu": DeviceProfile(name="edge-gpu", peak_flops=4e13, utilisation=0.4, power_w=50.0),
}


def compute_seconds(
    devices: Sequence[DeviceProfile], clients: ArrayLike, flops: ArrayLike
) -> Floats:
    """Return ``flops / (peak utilisation)`` per client; client i owns device ``i mod len``."""
    speed = np.array([device.peak_flops * device.utilisation for device in devices])
    return np.asarray(np.asarray(flops) / speed[np.asarray(clients) % len(devices)])


def compute_joules(
    devices: Sequence[DeviceProfile], clients: ArrayLike, flops: ArrayLike
) -> Floats:
    """Return seconds times the device's power, per client."""
    power = np.array([device.power_w for device in devices])
    owned = power[np.asarray(clients) % len(devices)]
    return np.asarray(owned * compute_seconds(devices, clients, flops))
