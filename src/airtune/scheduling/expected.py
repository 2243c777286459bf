"""What a bit takes in the long run: seconds that schedulers count on before they have seen any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from airtune.radio.cell import Links, likely_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling.goodput import mean_tries, widest_useful_hz

_LIKELY = 400  # links that stand for all that a client may have


def usual_bit_seconds(cell: CellConfig, links: Links, asked: int) -> Floats:
    """Return the seconds of a bit on mean links, [clients]; ``asked`` share the band equally.

    With the mean number of tries, as below; without the waits between them.
    """
    share = cell.bandwidth_hz / min(asked, len(links))
    usual = links.planned_snr_hz if cell.csi == "statistical" else links.mean_snr_hz
    tries = mean_tries(usual, links.mean_snr_hz, share, cell)
    return 1.0 / np.maximum(rate_bps(share, usual, cell.rate) / tries, 1e-9)


def least_bit_seconds(cell: CellConfig, links: Links, clients: Ints) -> Floats:
    """Return the mean seconds of a bit alone in the band over all rounds, of clients [n].

    Over the whole band, or as much of it as is of use. The mean is taken over the links, not of
    them: deep fades take far longer. Those in outage are left out, as nothing is sent then; 0 for
    who always is.
    """
    if cell.csi == "statistical":
        likely = links.planned_snr_hz[clients, None]
    else:
        likely = likely_snr_hz(cell, links, clients, _LIKELY)
    sends = ~in_outage(likely, cell.rate)
    share = widest_useful_hz(replace(links, planned_snr_hz=links.mean_snr_hz), clients, cell)
    tries = mean_tries(likely, links.mean_snr_hz[clients, None], share[:, None], cell)
    rate = np.maximum(rate_bps(share[:, None], likely, cell.rate) / tries, 1e-9)
    return np.where(sends, 1.0 / rate, 0.0).sum(1) / np.maximum(sends.sum(1), 1)
