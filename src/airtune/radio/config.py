"""The description of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from airtune.config import Config
from airtune.radio.agreement import check_cell
from airtune.radio.compute import DEVICES, DeviceProfile
from airtune.radio.delivery import Combining, LinkLayer
from airtune.radio.presets import PRESETS, resolve_cell, resolve_device
from airtune.radio.rate import RateModel
from airtune.radio.units import dbm_to_w

PathLossName = Literal["log-distance", "umi", "uma", "rma", "inh-mixed", "inh-open", "free-space"]


class CellConfig(Config):
    """One base station and its clients; ``"urban-micro"`` stands for ``{"preset": ...}``."""

    preset: str | None = Field(None, description=f"starting values: {', '.join(PRESETS)}")
    ideal: bool = Field(False, description="nothing is lost and nothing takes time or energy")
    measured: bool = Field(
        False,
        description="between machines: the links are those that devices measure, seconds those of "
        "the clock on the wall, from order to arrival, and energy is not known; of a cell there is "
        "the deadline",
    )

    carrier_ghz: float = Field(3.5, ge=0.5, le=100, description="carrier frequency")
    bandwidth_hz: float = Field(20e6, gt=0, description="uplink spectrum of all clients together")
    downlink_bandwidth_hz: float | None = Field(
        None, gt=0, description="broadcast spectrum; null is as the uplink"
    )
    layout: Literal["disc", "hexagon", "fixed"] = Field(
        "disc", description="clients lie anywhere in it, or fixed: where positions_m says"
    )
    radius_m: float = Field(
        200.0, gt=0, le=20e3, description="clients lie within this distance; a hexagon's corners"
    )
    min_distance_m: float = Field(10.0, ge=1, description="and not nearer than this")
    positions_m: tuple[tuple[float, float], ...] | None = Field(
        None, description="layout fixed: [x, y] of each client, the base station being at [0, 0]"
    )
    mobility: Literal["none", "random-waypoint"] = Field(
        "none", description="clients walk through the layout at speed_kmh, from point to point"
    )
    pause_s: float = Field(0.0, ge=0, description="random-waypoint: rest at each point")
    path_loss: PathLossName = Field(
        "umi",
        description="mean attenuation over distance; TR 38.901 means umi and uma for 10 m to 5 km, "
        "rma for 10 m to 10 km, inh for 1 to 150 m, which is not checked",
    )
    log_distance_exponent: float = Field(3.76, gt=0, le=10, description="of log-distance")
    log_distance_reference_db: float = Field(
        128.1, ge=0, le=300, description="log-distance: loss at the next"
    )
    log_distance_reference_m: float = Field(1000.0, gt=0, description="log-distance: its distance")
    indoor_fraction: float = Field(
        0.0, ge=0, le=1, description="of clients, behind walls of glass and concrete"
    )
    shadowing_db: float | None = Field(
        None, ge=0, le=20, description="log-normal spread; null is the path-loss model's own"
    )
    shadowing_map: bool = Field(
        False,
        description="sight and shadowing belong to places, so near clients have similar ones; "
        "else each client has its own; always so where clients move; places 192 or more "
        "decorrelation distances apart may have those of nearer ones",
    )
    decorrelation_m: float | None = Field(
        None,
        ge=0.1,
        description="of shadowing, exp(-distance / this); null is the path-loss model's own",
    )
    fading: Literal["rayleigh", "rician", "nakagami", "none"] = Field(
        "rician",
        description="small-scale fading; rician is rayleigh for clients out of sight or indoors",
    )
    rician_k_db: float = Field(
        9.0,
        ge=-20,
        le=40,
        description="fixed path over scattered power, the same for all models and clients; TR "
        "38.901 draws it for each, in dB around 9 for umi and uma and 7 for rma and inh, with a "
        "spread of 3.5 to 5",
    )
    nakagami_m: float = Field(2.0, ge=0.5, le=100, description="nakagami: 1 is rayleigh")
    delay_spread_ns: float | None = Field(
        None,
        gt=0,
        description="rms, of scattered paths, so that resource blocks fade differently; null is "
        "one fade for the whole band",
    )
    speed_kmh: float = Field(
        3.0, ge=0, le=500, description="of clients, for fading's memory and for mobility"
    )
    round_interval_s: float = Field(
        10.0, gt=0, description="between rounds, for fading's memory and for mobility"
    )

    snr_db: tuple[float, float] | None = Field(
        None,
        description="instead of distance and fading: each client's SNR, over the band divided by "
        "the number of clients, drawn anew each round, uniform in dB between these two",
    )
    trace: str | None = Field(
        None,
        description="instead of distance and fading: a CSV or Parquet file with columns round, "
        "client (from 0) and snr_db or rate_bps, over the band divided by the number of clients; "
        "begun anew at its end",
    )
    power_dbm: float = Field(23.0, ge=-40, le=60, description="a client's transmit power")
    base_station_power_dbm: float = Field(33.0, ge=-40, le=80, description="broadcast power")
    noise_dbm_per_hz: float = Field(-174.0, ge=-250, le=0, description="thermal noise density")
    noise_figure_db: float = Field(5.0, ge=0, le=30, description="of the base station")
    client_noise_figure_db: float = Field(9.0, ge=0, le=30, description="of the clients")
    noise_rise_db: float = Field(
        0.0, ge=0, le=60, description="interference of other cells over noise, at the base station"
    )
    rate: RateModel = Field(RateModel(), description="distance from Shannon")

    csi: Literal["perfect", "statistical"] = Field(
        "perfect", description="the server knows each round's gain, or only its mean"
    )
    fade_margin_db: float = Field(
        10.0, ge=0, le=60, description="statistical: rates are planned this far below the mean"
    )
    packet_error: Annotated[float, Field(ge=0, lt=1)] | Literal["waterfall", "bler"] = Field(
        0.1,
        description="error rate of a packet (NR aims at 10 %); waterfall: its average-power curve; "
        "bler: that of NR's scheme in use at its SNR, for rate.law mcs",
    )
    packet_bits: int = Field(
        8448,
        ge=1,
        description="one packet; an NR code block by default; bler takes the curves of 2,000 bits "
        "for larger blocks too",
    )
    max_transmissions: int | None = Field(
        None, ge=1, description="tries per packet; null repeats until delivered"
    )
    combining: Combining = Field(
        "none",
        description="none: a failed try is forgotten; chase: the copies of a packet add up, each "
        "of them faded on its own, and packet_error is that of the first; with bler all at the "
        "round's SNR",
    )
    link_layer: LinkLayer = Field(
        "unacknowledged",
        description="a packet that exhausts max_transmissions loses the message; acknowledged: it "
        "is sent anew, its copies forgotten, and takes time instead",
    )
    retransmission_delay_s: float = Field(
        0.008, ge=0, description="wait before a pass of retransmissions"
    )
    deadline_s: float | None = Field(
        None, gt=0, description="for compute and upload, from the end of the downlink"
    )
    late: Literal["drop", "wait"] = Field(
        "drop",
        description="what is not there by the deadline is dropped; or waited for and used, though "
        "grants are planned for the deadline",
    )
    allocation: Literal[
        "equal",
        "min-max-delay",
        "resource-blocks",
        "best-blocks",
        "min-energy",
        "max-min-rate",
        "max-sum-rate",
    ] = Field(
        "min-max-delay",
        description="how the uplink is divided: the band equally; so that the last finishes first, "
        "in hertz, in whole resource blocks, in those that are best for each, or with power then "
        "as low as the deadline allows; for "
        "the fastest slowest link; for the largest sum of rates, which goes by SNR (rate.law mcs: "
        "within 12 % of the largest)",
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
        return (
            [resolve_device(item) for item in listed]
            if isinstance(listed, list | tuple)
            else listed
        )

    @model_validator(mode="after")
    def _cross_check(self) -> CellConfig:
        check_cell(self)
        return self

    @property
    def broadcast_hz(self) -> float:
        """Downlink bandwidth in Hz."""
        return self.downlink_bandwidth_hz or self.bandwidth_hz

    @property
    def has_maps(self) -> bool:
        """Whether sight and shadowing are read from maps: asked for, or as clients move."""
        return self.shadowing_map or self.mobility != "none"

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
        """Noise density at the base station: its noise figure and the noise rise included.

        The rise is that of the uplink alone: clients hear the broadcast without it.
        """
        return dbm_to_w(self.noise_dbm_per_hz + self.noise_figure_db + self.noise_rise_db)

    @property
    def client_noise_w_per_hz(self) -> float:
        """Noise density at a client, its noise figure included."""
        return dbm_to_w(self.noise_dbm_per_hz + self.client_noise_figure_db)
