"""The description of a cell, with presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from airtune.config import Config
from airtune.errors import nearest
from airtune.radio.compute import DEVICES, DeviceProfile
from airtune.radio.rate import RateModel
from airtune.radio.units import dbm_to_w

# A preset lists what differs from CellConfig's defaults, which are the street-canyon cell.
# Models: TR 38.901. Radii and powers: the usual range of single-cell papers (DERIVED).
PRESETS: dict[str, dict[str, Any]] = {
    "urban-micro": {},
    "urban-macro": {
        "path_loss": "uma",
        "radius_m": 500.0,
        "min_distance_m": 35.0,
        "base_station_power_dbm": 46.0,
    },
    "legacy-macro": {
        "path_loss": "log-distance",
        "carrier_ghz": 2.0,
        "fading": "rayleigh",
        "packet_error": 0.0,
        "radius_m": 500.0,
        "min_distance_m": 35.0,
        "base_station_power_dbm": 46.0,
    },
    "ideal": {"ideal": True},
}


class CellConfig(Config):
    """One base station and its clients; ``"urban-micro"`` stands for ``{"preset": ...}``."""

    preset: str | None = Field(None, description=f"starting values: {', '.join(PRESETS)}")
    ideal: bool = Field(False, description="nothing is lost and nothing takes time or energy")

    carrier_ghz: float = Field(3.5, ge=0.5, le=100, description="carrier frequency")
    bandwidth_hz: float = Field(20e6, gt=0, description="uplink spectrum of all clients together")
    downlink_bandwidth_hz: float | None = Field(
        None, gt=0, description="broadcast spectrum; null is as the uplink"
    )
    radius_m: float = Field(200.0, gt=0, le=20e3, description="clients lie within this distance")
    min_distance_m: float = Field(10.0, ge=1, description="and not nearer than this")
    path_loss: Literal["log-distance", "umi", "uma", "free-space"] = Field(
        "umi", description="mean attenuation over distance"
    )
    shadowing_db: float | None = Field(
        None, ge=0, le=20, description="log-normal spread; null is the path-loss model's own"
    )
    fading: Literal["rayleigh", "rician", "none"] = Field(
        "rician", description="small-scale fading; rician is rayleigh for clients out of sight"
    )
    rician_k_db: float = Field(9.0, ge=-20, le=40, description="fixed path over scattered power")
    speed_kmh: float = Field(3.0, ge=0, le=500, description="of clients, for fading's memory")
    round_interval_s: float = Field(10.0, gt=0, description="between rounds, for fading's memory")

    snr_db: tuple[float, float] | None = Field(
        None,
        description="instead of distance and fading: each client's SNR, over the band divided by "
        "the number of clients, drawn anew each round, uniform in dB between these two",
    )
    power_dbm: float = Field(23.0, ge=-40, le=60, description="a client's transmit power")
    base_station_power_dbm: float = Field(33.0, ge=-40, le=80, description="broadcast power")
    noise_dbm_per_hz: float = Field(-174.0, ge=-250, le=0, description="thermal noise density")
    noise_figure_db: float = Field(5.0, ge=0, le=30, description="of the base station")
    client_noise_figure_db: float = Field(9.0, ge=0, le=30, description="of the clients")
    rate: RateModel = Field(RateModel(), description="distance from Shannon")

    csi: Literal["perfect", "statistical"] = Field(
        "perfect", description="the server knows each round's gain, or only its mean"
    )
    fade_margin_db: float = Field(
        10.0, ge=0, le=60, description="statistical: rates are planned this far below the mean"
    )
    packet_error: Annotated[float, Field(ge=0, lt=1)] | Literal["waterfall"] = Field(
        0.1, description="error rate of a packet (NR aims at 10 %), or its average-power curve"
    )
    packet_bits: int = Field(8448, ge=1, description="one packet; an NR code block by default")
    max_transmissions: int | None = Field(
        None, ge=1, description="tries per packet; null repeats until delivered"
    )
    retransmission_delay_s: float = Field(
        0.008, ge=0, description="wait before a pass of retransmissions"
    )
    deadline_s: float | None = Field(
        None, gt=0, description="for compute and upload, from the end of the downlink"
    )
    allocation: Literal[
        "equal", "min-max-delay", "resource-blocks", "min-energy", "max-min-rate", "max-sum-rate"
    ] = Field(
        "min-max-delay",
        description="how the uplink is divided: the band equally; so that the last finishes first, "
        "in hertz, in whole resource blocks, or with power then as low as the deadline allows; for "
        "the fastest slowest link; for the largest sum of rates, which goes by SNR",
    )
    devices: tuple[DeviceProfile, ...] = Field(
        (DEVICES["phone"],),
        min_length=1,
        description=f"{', '.join(DEVICES)} or own profiles; client i owns number i mod count",
    )
    backward: Literal["all", "adapted"] = Field(
        "all",
        description="what training is charged for: gradients go back through all parameters P, "
        "4 P floating-point operations a token whatever trains; or from the output to the first "
        "adapted layer only, and in kind blocks also into the weights that train",
    )
    circuit_power_w: float = Field(0.1, ge=0, description="a client's draw besides its radiation")
    receive_power_w: float = Field(0.2, ge=0, description="a client's draw while listening")

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, value: Any) -> Any:
        return resolve_cell(value) if isinstance(value, str | Mapping) else value

    @field_validator("devices", mode="before")
    @classmethod
    def _name_devices(cls, value: Any) -> Any:
        listed = [value] if isinstance(value, str | Mapping | DeviceProfile) else value
        return [_device(item) for item in listed] if isinstance(listed, list | tuple) else listed

    @model_validator(mode="after")
    def _cross_check(self) -> CellConfig:
        if self.min_distance_m >= self.radius_m:
            raise ValueError(
                f"min_distance_m ({self.min_distance_m:g}) must be below "
                f"radius_m ({self.radius_m:g})"
            )
        if self.snr_db is not None and not -50 <= self.snr_db[0] <= self.snr_db[1] <= 100:
            raise ValueError("snr_db is a lowest and a highest value, from -50 to 100 dB")
        if self.allocation == "min-energy" and self.deadline_s is None:
            raise ValueError(
                "allocation min-energy lowers power as far as the deadline allows; set deadline_s"
            )
        narrowest = min(self.bandwidth_hz, self.broadcast_hz)
        if narrowest < self.rate.resource_block_hz:
            raise ValueError(
                f"a bandwidth of {narrowest:g} Hz is narrower than one resource block "
                f"({self.rate.resource_block_hz:g} Hz)"
            )
        return self

    @property
    def broadcast_hz(self) -> float:
        """Downlink bandwidth in Hz."""
        return self.downlink_bandwidth_hz or self.bandwidth_hz

    @property
    def blocks(self) -> int:
        """Whole resource blocks of the uplink spectrum."""
        return int(self.bandwidth_hz / self.rate.resource_block_hz * (1.0 + 1e-12))

    @property
    def power_w(self) -> float:
        """A client's transmit power."""
        return dbm_to_w(self.power_dbm)

    @property
    def base_station_power_w(self) -> float:
        """The broadcast power."""
        return dbm_to_w(self.base_station_power_dbm)

    @property
    def noise_w_per_hz(self) -> float:
        """Noise density at the base station, its noise figure included."""
        return dbm_to_w(self.noise_dbm_per_hz + self.noise_figure_db)

    @property
    def client_noise_w_per_hz(self) -> float:
        """Noise density at a client, its noise figure included."""
        return dbm_to_w(self.noise_dbm_per_hz + self.client_noise_figure_db)


def resolve_cell(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's keys with its preset's values filled in; explicit keys win.

    Raises ``ValueError`` naming the nearest preset if there is none of that name.
    """
    given = {"preset": value} if isinstance(value, str) else dict(value)
    preset = given.get("preset")
    if preset is None:
        return given
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"no cell preset '{preset}'; {nearest(str(preset), PRESETS)}")
    return {**PRESETS[preset], **given}


def _device(item: Any) -> Any:
    if not isinstance(item, str):
        return item
    if item not in DEVICES:
        raise ValueError(f"no device '{item}'; {nearest(item, DEVICES)}")
    return DEVICES[item]
