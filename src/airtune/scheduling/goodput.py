"""How wide a share is of use: where repeats cost more than more spectrum brings."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.delivery import expected_transmissions, packet_error_rate
from airtune.radio.harq import mean_repeats
from airtune.radio.mcs import THRESHOLD_SNR
from airtune.radio.rate import occupied_hz, rate_bps
from airtune.radio.units import Floats, Ints

_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
_STEPS = 60  # of the search, each of them 0.618 times as wide
_NARROWEST = 1e-9  # of the band


def mean_tries(
    planned_snr_hz: Floats, mean_snr_hz: Floats, share: ArrayLike, config: CellConfig
) -> Floats:
    """Return the mean number of tries of a packet that is sent over ``share`` Hz; all broadcast.

    Of a planned link, and its mean over fading; 1 without errors. An upload of s bits at R bit/s
    is on air for ``tries s / R`` seconds in the mean; the waits between tries come on top.
    """
    return _tries(planned_snr_hz, mean_snr_hz, share, config, config.max_transmissions)


def goodput_bps(links: Links, clients: Ints, share: Floats, config: CellConfig) -> Floats:
    """Return the planned rate over the mean number of tries, in bit/s.

    ``share`` in Hz broadcasts with ``clients`` [n]. Tries are not limited here.
    """
    planned, mean = links.planned_snr_hz[clients], links.mean_snr_hz[clients]
    rate = rate_bps(share, planned, config.rate)
    return np.asarray(rate / _tries(planned, mean, share, config, None))


def widest_useful_hz(links: Links, clients: Ints, config: CellConfig) -> Floats:
    """Return the share in Hz, [n], up to which more of the band carries more; that of most.

    The whole band where an error rate is a number, as rates never fall with bandwidth. Errors by
    the waterfall grow with it: with Shannon's law goodput is then a concave function over an
    affine one, or times an exponential one, so it rises to a maximum and falls (DERIVED), which a
    golden-section search finds. In the steps of law mcs it is the best of the schemes' own widths
    and of the one at which a scheme's goodput is largest, ``mean_snr / v``.
    """
    band = np.full(clients.size, config.bandwidth_hz)
    if config.packet_error != "waterfall":
        return band
    if config.rate.law == "mcs":
        at_peak = links.mean_snr_hz[clients] / mean_repeats(packet_error_rate("waterfall", 1.0))
        planned = links.planned_snr_hz[clients]
        widths = np.stack([*(planned / each for each in THRESHOLD_SNR), at_peak, band])
        widths = np.minimum(widths, band)
        best = goodput_bps(links, clients, widths, config).argmax(0)
        return np.asarray(widths[best, np.arange(clients.size)])
    low, high = np.log(_NARROWEST * band), np.log(band)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        falls = goodput_bps(links, clients, np.exp(left), config) >= goodput_bps(
            links, clients, np.exp(right), config
        )
        low, high = np.where(falls, low, left), np.where(falls, right, high)
    found = np.exp(0.5 * (low + high))
    # Where goodput rises all the way the search comes near the end of the band only.
    ends = goodput_bps(links, clients, band, config) >= goodput_bps(links, clients, found, config)
    return np.where(ends, band, found)


def _tries(
    planned_snr_hz: Floats, mean_snr_hz: Floats, share: ArrayLike, config: CellConfig,
    limit: int | None,
) -> Floats:  # fmt: skip
    width = np.maximum(occupied_hz(share, planned_snr_hz, config.rate), 1e-300)  # in outage
    with np.errstate(divide="ignore"):  # a q that rounds to one delivers nothing
        q = packet_error_rate(config.packet_error, mean_snr_hz / width)
        return expected_transmissions(q, limit, config.combining)
