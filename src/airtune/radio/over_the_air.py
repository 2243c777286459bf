"""Analog aggregation over the air: all clients send at once and the channel adds them up.

Entries of a real vector go in pairs, one as the real and one as the imaginary part of a complex
symbol s; symbols go over the subchannels in turn. Client k sends, wherever its estimated channel
h has at least the power that ``threshold`` asks for,

    x = sqrt(c) lambda_k s / h

so that ``sqrt(c) lambda_k s`` arrives from everyone, and the server divides the sum by sqrt(c).
c is the largest that keeps the power budget of every client; without a threshold that is the
client of least ``P |h|^2 / lambda_k^2``. Source: broadband analog aggregation, Zhu, Wang and
Huang 2020, with truncation and ``rho_0 = P / E1(g_th)``. Ours: c from the power of the vectors
themselves, which the server has to learn, as the weights, over a channel of a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from scipy.special import exp1

from airtune.config import Config
from airtune.radio.fading import Coefficients, scattered
from airtune.radio.over_the_air_inputs import check_band, checked
from airtune.radio.units import Bools, Floats, Ints

_AT_ONCE = 2**20  # symbols of all clients that are held in memory together


class OverTheAir(Config):
    """How clients invert their channels, and what is wrong with them."""

    threshold: float = Field(
        0.0,
        ge=0,
        description="a client is silent on subchannels with less than this of its mean gain; "
        "0: nobody is, and the weakest client decides",
    )
    power: Literal["average", "vector", "symbol"] = Field(
        "vector",
        description="what stays within the transmit power: the mean over Rayleigh fading, the "
        "mean over the symbols of this vector, or every symbol",
    )
    csi_error: float = Field(
        0.0, ge=0, description="variance of the error of the estimated channel, of the mean gain"
    )
    phase_rad: float = Field(0.0, ge=0, description="spread of each client's phase offset")
    rescale: bool = Field(
        False,
        description="divide by the share of the weights that took part in a subchannel: for "
        "vectors that are alike",
    )

    @model_validator(mode="after")
    def _bounded(self) -> OverTheAir:
        if self.power == "average" and self.threshold == 0.0:
            raise ValueError(
                "power 'average' needs a threshold above 0: inverting every Rayleigh channel "
                "takes infinite power in the mean"
            )
        return self


@dataclass(frozen=True)
class Aggregate:
    """What the server gets, and what it cost.

    ``total`` [d] stands for the weighted sum; the errors are means over its entries.
    ``took_part`` [clients, subchannels]; ``scale`` is c, so the de-noising scalar is 1 / sqrt(c);
    ``receive_snr`` is linear, of the sum as it arrives; ``joules`` [clients] are radiated.
    """

    total: Floats
    predicted_mse: float
    realised_mse: float
    took_part: Bools
    scale: float
    receive_snr: float
    joules: Floats
    seconds: float


def participating_share(threshold: ArrayLike) -> Floats:
    """Return ``exp(-g_th)``, the share of Rayleigh subchannels that are used."""
    return np.asarray(np.exp(-np.asarray(threshold)))


def truncated_power(power_w: ArrayLike, threshold: ArrayLike) -> Floats:
    """Return ``rho_0 = P / E1(g_th)``, the power that arrives of symbols of unit power.

    E1 is the mean of ``1 / |h|^2`` over Rayleigh fading where ``|h|^2 >= g_th``, else nothing.
    """
    return np.asarray(np.asarray(power_w) / exp1(np.asarray(threshold, dtype=np.float64)))


def airtime_s(entries: int, bandwidth_hz: float) -> float:
    """Return ``d / (2 B)`` seconds, an odd entry taking a symbol of its own."""
    return math.ceil(entries / 2) / bandwidth_hz


def aggregate(
    vectors: NDArray[Any],
    weights: ArrayLike,
    gain: ArrayLike,
    mean_gain: ArrayLike,
    options: OverTheAir,
    rng: np.random.Generator,
    *,
    power_w: float,
    noise_w_per_hz: float,
    bandwidth_hz: float,
) -> Aggregate:
    """Add up real ``vectors`` [clients, d] with ``weights`` [clients] over the air.

    ``gain`` [clients] or [clients, subchannels] is the power of the channel as clients estimate
    it, ``mean_gain`` [clients] its mean over fading. With m in {0, 1} for who sends, r the share
    of weights that does (1 unless rescaled), N the noise in B hertz, the mean squared error is, in
    the mean over noise, phases and errors of estimates for given vectors and estimates (DERIVED),

        1/d sum_j |sum_k lambda_k s_kj (mu m/r - 1)|^2
                  + sum_k lambda_k^2 |s_kj|^2 m/r^2 (1 + v_k - mu^2) + N / (c r^2)

    ``mu = exp(-phase^2 / 2)``, ``v_k = csi_error mean_gain / gain``. It takes for granted that the
    true channel is the estimate plus an error that does not depend on it, as with least mean
    squares, that offsets and errors are independent between clients, and that symbols arrive in
    step. A phase offset lasts for the vector. Where nobody sends the result is 0.
    Raises UserError for shapes that do not fit, numbers that are not finite, negative weights, and
    channels or clients without power.
    """
    lam, power, mean = checked(vectors, weights, gain, mean_gain, options.threshold)
    check_band(power_w, noise_w_per_hz, bandwidth_hz)
    clients, entries = vectors.shape
    subchannels, symbols = power.shape[1], math.ceil(entries / 2)
    noise_w = noise_w_per_hz * bandwidth_hz
    took_part = power >= options.threshold * mean
    needed = np.where(took_part, 1.0 / np.where(took_part, power, 1.0), 0.0)
    energy, drawn, peak = _loads(vectors, needed)
    if options.power == "average":
        usual = truncated_power(power_w, options.threshold) * mean[:, 0]
        load = power_w * lam**2 * energy / symbols / usual
    else:
        load = lam**2 * (drawn / symbols if options.power == "vector" else peak)
    scale = power_w / float(load.max()) if load.any() else math.inf

    share = (lam @ took_part) / lam.sum() if options.rescale else np.ones(subchannels)
    undo = np.where(took_part.any(0) & (share > 0), 1.0 / np.where(share > 0, share, 1.0), 0.0)
    blur = options.csi_error * np.where(took_part, mean * needed, 0.0)
    error = np.sqrt(blur) * scattered(power.size, rng).reshape(power.shape)
    offset = np.exp(1j * options.phase_rad * rng.standard_normal((clients, 1)))
    arriving = lam[:, None] * took_part * (1.0 + error) * offset
    mu = math.exp(-0.5 * options.phase_rad**2)
    missing = lam[:, None] * (mu * took_part * undo - 1.0)
    power_read = lam[:, None] ** 2 * took_part * undo**2
    spread = power_read * (1.0 + blur - mu**2)

    total = np.empty(2 * symbols)
    predicted = realised = received = 0.0
    for columns, s in _chunks(vectors):
        at = columns % subchannels
        arrived = _sum(arriving, at, s)
        received += float((np.abs(arrived) ** 2).sum())
        noise = math.sqrt(noise_w / scale) * scattered(columns.size, rng)
        result = ((arrived + noise) * undo[at]).view(np.float64)
        exact = (lam @ s).view(np.float64)
        start, stop = 2 * columns[0], 2 * columns[-1] + 2
        total[start:stop] = result
        realised += float(((result - exact)[: entries - start] ** 2).sum())
        predicted += float((np.abs(_sum(missing, at, s)) ** 2).sum())
        predicted += float(_sum(spread, at, np.abs(s) ** 2).sum())
        predicted += noise_w / scale * float((undo[at] ** 2).sum())
    if entries % 2:  # the last symbol's imaginary part is not read
        at = (symbols - 1) % subchannels
        turned = 0.5 * (1.0 + blur[:, at] - math.exp(-2.0 * options.phase_rad**2))
        predicted -= float((power_read[:, at] * turned) @ vectors[:, -1].astype(np.float64) ** 2)
        predicted -= 0.5 * noise_w / scale * float(undo[at] ** 2)
    sent = math.isfinite(scale)
    arrived_w = scale * received / symbols if sent else 0.0
    return Aggregate(
        total=total[:entries],
        predicted_mse=predicted / entries,
        realised_mse=realised / entries,
        took_part=took_part,
        scale=scale,
        receive_snr=arrived_w / noise_w if noise_w > 0.0 else math.inf,
        joules=scale * lam**2 * drawn / bandwidth_hz if sent else np.zeros(clients),
        seconds=airtime_s(entries, bandwidth_hz),
    )


def _chunks(vectors: NDArray[Any]) -> Iterator[tuple[Ints, Coefficients]]:
    """Yield numbers of symbols [n] and the symbols of all clients [clients, n], piece by piece."""
    clients, entries = vectors.shape
    step = max(_AT_ONCE // clients, 1)
    for start in range(0, math.ceil(entries / 2), step):
        piece = vectors[:, 2 * start : 2 * (start + step)].astype(np.float64, order="C")
        if piece.shape[1] % 2:
            piece = np.concatenate([piece, np.zeros((clients, 1))], axis=1)
        symbols = piece.view(np.complex128)
        yield np.arange(start, start + symbols.shape[1]), symbols


def _loads(vectors: NDArray[Any], needed: Floats) -> tuple[Floats, Floats, Floats]:
    """Return each client's energy, and as it is drawn by inversion, its sum and its peak."""
    energy, drawn, peak = np.zeros((3, vectors.shape[0]))
    for columns, s in _chunks(vectors):
        power = s.real**2 + s.imag**2
        energy += power.sum(1)
        power *= needed[:, columns % needed.shape[1]]
        drawn += power.sum(1)
        peak = np.maximum(peak, power.max(1))
    return energy, drawn, peak


def _sum(factor: NDArray[Any], at: Ints, values: NDArray[Any]) -> NDArray[Any]:
    """Return sums over clients of values [clients, n] times factors [clients, subchannels]."""
    if factor.shape[1] == 1:
        return np.asarray(factor[:, 0] @ values)
    return np.asarray(np.einsum("kn,kn->n", factor[:, at], values))
