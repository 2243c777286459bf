"""What a bit takes in the long run: seconds that schedulers count on before they have seen any."""

from __future__ import annotations

import numpy as np

from airtune.radio.cell import Links, likely_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Floats, Ints

_LIKELY = 400  # links that stand for all that a client may have


def usual_bit_seconds(cell: CellConfig, links: Links, asked: int) -> Floats:
    """Return the seconds of a bit on mean links, [clients]; ``asked`` share the band equally."""
    share = cell.bandwidth_hz / min(asked, len(links))
    usual = links.planned_snr_hz if cell.csi == "statistical" else links.mean_snr_hz
    return 1.0 / np.maximum(rate_bps(share, usual, cell.rate), 1e-9)


def least_bit_seconds(cell: CellConfig, links: Links, clients: Ints) -> Floats:
    """Return the mean seconds of a bit with the whole band over all rounds, of clients [n].

    The mean is taken over the links, not of them: deep fades take far longer. Those in outage are
    left out, as nothing is sent then; 0 for who always is.
    """
    if cell.csi == "statistical":
        likely = links.planned_snr_hz[clients, None]
    else:
        likely = likely_snr_hz(cell, links, clients, _LIKELY)
    sends = ~in_outage(likely, cell.rate)
    rate = np.maximum(rate_bps(cell.bandwidth_hz, likely, cell.rate), 1e-9)
    return np.where(sends, 1.0 / rate, 0.0).sum(1) / np.maximum(sends.sum(1), 1)
