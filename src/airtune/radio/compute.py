"""Seconds and joules of training on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

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


class Cycles(Config):
    """A processor by its clock: ``C / f`` seconds and ``kappa f^2 C`` joules for C cycles.

    The convention without one half: papers that write ``(alpha / 2) C f^2`` mean alpha = 2 kappa.
    Source: the usual law of dynamic power in CMOS; kappa from 1e-29 to 1e-27 in papers.
    """

    frequency_hz: float = Field(gt=0, description="clock, usually 0.5e9 to 3e9")
    flops_per_cycle: float = Field(gt=0, description="floating-point operations per cycle")
    kappa: float = Field(1e-28, ge=0, description="switched capacitance, J per cycle and Hz^2")


class DeviceProfile(Config):
    """A client's computer, reduced to what its time and energy depend on.

    Either by peak and power or by cycles, which say both.
    """

    name: str = Field("custom", description="for reports")
    peak_flops: float | None = Field(
        None, gt=0, description="floating-point operations per second at best"
    )
    utilisation: float = Field(0.3, gt=0, le=1, description="share of the peak that training gets")
    power_w: float | None = Field(None, ge=0, description="draw while computing")
    cycles: Cycles | None = Field(
        None, description="instead of peak and power: a clock, work per cycle and capacitance"
    )

    @model_validator(mode="after")
    def _one_description(self) -> DeviceProfile:
        given = [self.peak_flops is not None, self.power_w is not None]
        if self.cycles is None and not all(given):
            raise ValueError("a device needs both peak_flops and power_w, or cycles instead")
        usual = type(self).model_fields["utilisation"].default
        if self.cycles is not None and (any(given) or self.utilisation != usual):
            raise ValueError(
                "a device with cycles has no peak_flops, utilisation or power_w; give one of the "
                "two descriptions"
            )
        return self

    @property
    def flops_per_s(self) -> float:
        """Floating-point operations per second in training."""
        if self.cycles is not None:
            return self.cycles.frequency_hz * self.cycles.flops_per_cycle
        assert self.peak_flops is not None
        return self.peak_flops * self.utilisation

    @property
    def computing_w(self) -> float:
        """Draw while computing; of cycles ``kappa f^3``, which is ``kappa f^2`` a cycle."""
        if self.cycles is not None:
            return self.cycles.kappa * self.cycles.frequency_hz**3
        assert self.power_w is not None
        return self.power_w


# Orders of magnitude of today's half-precision accelerators: UNVERIFIED, meant to be overridden.
DEVICES: dict[str, DeviceProfile] = {
    "phone": DeviceProfile(name="phone", peak_flops=2e12, utilisation=0.3, power_w=5.0),
    "laptop": DeviceProfile(name="laptop", peak_flops=1e13, utilisation=0.3, power_w=40.0),
    "edge-gpu": DeviceProfile(name="edge-gpu", peak_flops=4e13, utilisation=0.4, power_w=50.0),
}


def compute_seconds(
    devices: Sequence[DeviceProfile], clients: ArrayLike, flops: ArrayLike
) -> Floats:
    """Return ``flops / (peak utilisation)`` per client; client i owns device ``i mod len``.

    Of a device by cycles, ``cycles / f`` with ``flops / flops_per_cycle`` cycles.
    """
    speed = np.array([device.flops_per_s for device in devices])
    return np.asarray(np.asarray(flops) / speed[np.asarray(clients) % len(devices)])


def compute_joules(
    devices: Sequence[DeviceProfile], clients: ArrayLike, flops: ArrayLike
) -> Floats:
    """Return seconds times the device's power, per client."""
    power = np.array([device.computing_w for device in devices])
    owned = power[np.asarray(clients) % len(devices)]
    return np.asarray(owned * compute_seconds(devices, clients, flops))
