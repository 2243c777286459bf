"""How packets fail on links that were granted: plans and draws ask here.

With ``packet_error: bler`` a packet has the error rate of the scheme in use at the SNR at which it
is used (bler.py). The scheme is the one that the server planned with: on a share of b Hz and the
planned SNR, the best of mcs.py, on the part of the share that it fills. At its threshold, chosen
for errors of 10 %, the table has 1 to 9 % for packets of 2,000 bits and more; short codes do worse
there, up to 47 % for 24 bits. The SNR is

- in a draw that of the round, whatever the server knew: a fade below the plan is no cut-off, as
  long as some packets get through;
- in a plan the planned one. With perfect CSI that is the SNR of the round. With statistical CSI it
  lies below the mean by the margin, and the plan holds for all rounds that fade no deeper.

Where blocks fade differently, the flat link that stands for them (selective.py) does so in errors
as in rates: spread over the band a packet has the SNR of equal mutual information, the usual
effective SNR; on blocks of its own that of the flat link that carries as much, which is at the
threshold of its scheme, or at the best scheme that of the worst block. n copies have n times the
effective SNR. Their own would be less, by 0.1 to 0.3 dB for two and 0.2 to 1.2 dB for sixteen in
the mean over Rayleigh blocks at 20 to 0 dB (DERIVED, measured).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.bler import bler_curves
from airtune.radio.config import CellConfig
from airtune.radio.delivery import Law
from airtune.radio.mcs import INDEX, mcs_scheme
from airtune.radio.rate import occupied_hz
from airtune.radio.units import Bools, Floats, from_db

_WATERFALL_SNR = float(from_db(0.023))

_COPIES = 64  # that are ever added up, 18 dB
_ENOUGH = 16  # after which a link that decodes nothing is down, 12 dB
_HOPELESS = 0.99


def packet_error_rate(setting: float | str, mean_snr: ArrayLike) -> Floats:
    """Return each link's packet error probability q.

    A number is q itself; ``"waterfall"`` is ``q = 1 - exp(-v / mean_snr)``, v = 0.023 dB, with the
    SNR averaged over the fading. Source: the average-power form of Chen et al.
    """
    if setting == "waterfall":
        return np.asarray(-np.expm1(-_WATERFALL_SNR / np.asarray(mean_snr, dtype=np.float64)))
    return np.full(np.shape(mean_snr), float(setting))


def packet_errors(
    config: CellConfig,
    bandwidth_hz: ArrayLike,
    planned_snr_hz: ArrayLike,
    snr_hz: ArrayLike,
    mean_snr_hz: ArrayLike,
) -> tuple[Floats, Law]:
    """Return the errors of packets on links [n], and the law of delivery.py that they follow.

    A probability for each link, [n]; under the law ``copies`` the failures of 1, 2 ... copies
    together, [n, copies]. ``planned_snr_hz`` is what the server chose scheme and width by,
    ``snr_hz`` what the link has when it sends, ``mean_snr_hz`` its mean over fading (in Hz, of the
    power in use).
    """
    width = np.maximum(occupied_hz(bandwidth_hz, planned_snr_hz, config.rate), 1e-300)  # no link
    if config.packet_error != "bler":
        mean_snr = np.asarray(mean_snr_hz) / width
        return packet_error_rate(config.packet_error, mean_snr), config.combining
    curves = bler_curves(config.packet_bits)
    scheme = INDEX[mcs_scheme(bandwidth_hz, planned_snr_hz)]
    with np.errstate(over="ignore"):
        snr = np.asarray(snr_hz) / width
    if config.combining == "none":
        return curves.error(scheme, snr), "none"
    failures: list[Floats] = []
    while len(failures) < _COPIES and (not failures or failures[-1].any()):
        failures.append(curves.error(scheme, (len(failures) + 1) * snr))
    return np.stack(failures, axis=-1), "copies"


def undecodable(errors: Floats, law: Law, limit: int | None) -> Bools:
    """Return which links are down under ``bler``: 99 of 100 packets fail. Ours.

    With combining, even with as many copies together as a sender may send, and 16 at most.
    """
    if law == "copies":
        errors = errors[..., : min(limit or _ENOUGH, _ENOUGH)][..., -1]
    return np.asarray(errors >= _HOPELESS, dtype=np.bool_)
