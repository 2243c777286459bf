"""How wide a share is of use: where repeats cost more than more spectrum brings."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.delivery import Combining, expected_transmissions
from airtune.radio.harq import mean_repeats
from airtune.radio.mcs import THRESHOLD_SNR
from airtune.radio.packet_errors import packet_error_rate, packet_errors
from airtune.radio.rate import rate_bps
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

    ``share`` in Hz broadcasts with ``clients`` [n]. Tries are not limited here: a limit only says
    when copies are forgotten.
    """
    planned, mean = links.planned_snr_hz[clients], links.mean_snr_hz[clients]
    rate = rate_bps(share, planned, config.rate)
    return np.asarray(rate / _tries(planned, mean, share, config, _forgotten_after(config)))


def widest_useful_hz(links: Links, clients: Ints, config: CellConfig) -> Floats:
    """Return the share in Hz, [n], up to which more of the band carries more; that of most.

    The whole band where an error rate is a number, as rates never fall with bandwidth. Errors by
    the waterfall grow with it: the mean tries are then a convex function of the width, exponential
    without combining and affine with it (DERIVED), between the two where copies are forgotten
    (checked for 1 to 50 tries). With Shannon's law goodput is concave over convex, so it rises to a
    maximum and falls, which a golden-section search finds. In the steps of law mcs it is the best
    of the schemes' own widths and of the one at which a scheme's goodput is largest, ``x mean_snr /
    v`` with the x of :func:`_peak`.
    """
    band = np.full(clients.size, config.bandwidth_hz)
    if config.packet_error != "waterfall":
        return band
    if config.rate.law == "mcs":
        at_peak = links.mean_snr_hz[clients] / mean_repeats(packet_error_rate("waterfall", 1.0))
        at_peak = at_peak * _peak(config.combining, _forgotten_after(config))
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
    with np.errstate(divide="ignore"):  # a q that rounds to one delivers nothing
        q, law = packet_errors(config, share, planned_snr_hz, planned_snr_hz, mean_snr_hz)
        return expected_transmissions(q, limit, law, config.link_layer)


def _forgotten_after(config: CellConfig) -> int | None:
    """Return the tries after which copies are forgotten and a packet begins anew."""
    return config.max_transmissions if config.link_layer == "acknowledged" else None


@lru_cache
def _peak(combining: Combining, cycle: int | None) -> float:
    """Return the x at which ``x / E(x)`` is largest, E being the mean tries at ``q = 1 - e^-x``.

    1 without combining, whose E is ``e^x``; copies that are never forgotten have no such peak.
    """
    if combining == "none" or cycle is None:
        return 1.0

    def tries(x: float) -> float:
        q = -np.expm1(-x)
        return float(expected_transmissions(q, cycle, combining, "acknowledged"))

    found = minimize_scalar(lambda x: -x / tries(x), bounds=(0.5, 30.0), options={"xatol": 1e-9})
    return float(found.x)
