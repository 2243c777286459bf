"""How much of an upload a budget of latency affords in the long run."""

from __future__ import annotations

import numpy as np

from airtune.errors import UserError
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.radio.units import Floats
from airtune.scheduling.bandwidth import equal_shares
from airtune.scheduling.goodput import mean_tries
from airtune.scheduling.latency import Pieces


def affordable_pieces(
    pieces: Pieces, snr_hz: Floats, least_bit_seconds: Floats, compute_seconds: Floats,
    budget_s: float, cell: CellConfig, asked: int,
) -> Floats:  # fmt: skip
    """Return the mean number of pieces per upload, [clients]; NaN who never meets the budget.

    ``K = ((tau - tau_cmp) R - fixed) / piece`` at the rate ``R`` of average links ``snr_hz``
    [clients] (in Hz) with the band divided equally among ``asked`` clients, over the mean number
    of tries, at most all pieces.
    Below one piece it is the share of rounds in which one is sent. Raises UserError if nobody can
    send the smallest upload in ``budget_s`` even over the whole band, where a bit takes
    ``least_bit_seconds`` [clients]. DERIVED: stage 1 of TSFA,
    which has no fixed part and no computing.
    """
    share = equal_shares(asked, cell.bandwidth_hz)[0]
    rate = rate_bps(share, snr_hz, cell.rate) / mean_tries(snr_hz, snr_hz, share, cell)
    least = compute_seconds + pieces.smallest * least_bit_seconds
    if (least > budget_s).all():
        client = int(least.argmin())
        raise UserError(
            f"method.latency_s: {budget_s:g} s is below what any client needs on average links; "
            f"client {client} needs least, {least[client]:.3g} s, {compute_seconds[client]:.3g} of "
            "them for computing. Raise it, or ask for fewer local steps."
        )
    room = np.maximum(budget_s - compute_seconds, 0.0) * rate
    piece, fixed = float(np.mean(pieces.bits)), float(pieces.fixed_bits)
    count = np.where(room < fixed + piece, room / (fixed + piece), (room - fixed) / piece)
    return np.where(least > budget_s, np.nan, np.minimum(count, float(pieces.most)))
