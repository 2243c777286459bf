"""A budget of time for each upload, or the mean one: who can keep it, and with how much."""

from __future__ import annotations

import numpy as np

from airtune.errors import UserError
from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling.deadline import bits_by_deadline
from airtune.scheduling.expected import least_bit_seconds


def bits_within(
    links: Links, clients: Ints, share: Floats, compute: Floats, budget_s: float, cell: CellConfig
) -> Floats:
    """Return the bits [n] with which every upload keeps the budget, computing included.

    The repeats that packet errors cost are allowed for in 999 of 1000 cases: the budget is a
    deadline. ``share`` in Hz and ``compute`` in seconds are those of clients [n].
    """
    planned = links.planned_snr_hz[clients]
    if cell.packet_error == 0.0:
        rate = rate_bps(share, planned, cell.rate)
        return np.asarray(np.maximum(budget_s - compute, 0.0) * rate)
    due = cell.model_copy(update={"deadline_s": budget_s})
    return bits_by_deadline(planned, links.mean_snr_hz[clients], share, compute, due)


def ratios_within(
    compute: Floats, bit_seconds: Floats, fixed_bits: float, piece_bits: float, budget_s: float,
    common: bool,
) -> Floats:  # fmt: skip
    """Return the part of the pieces, [n], with which uploads keep the budget on usual links.

    A bit takes ``bit_seconds`` [n] there; besides the fixed part an upload has at most
    ``piece_bits``. ``common``: the least one for all.
    """
    left = np.maximum(budget_s - compute, 0.0)
    room = left / bit_seconds - fixed_bits
    ratios = np.minimum(np.maximum(room, 0.0) / piece_bits, 1.0)
    return np.full(len(ratios), ratios.min()) if common else ratios


def out_of_budget(
    links: Links, chosen: Ints, compute: Floats, smallest_bits: float, budget_s: float,
    cell: CellConfig, begins: bool,
) -> dict[int, str]:  # fmt: skip
    """Return who of ``chosen`` could not keep the budget even with the whole band, with reasons.

    ``compute`` [clients] in seconds. Raise UserError if a run ``begins`` and that is everybody.
    """
    sending = smallest_bits * least_bit_seconds(cell, links, chosen)
    least = compute[chosen] + sending
    reached = sending > 0.0  # who is always in outage says nothing of the budget
    if begins and reached.any() and (least[reached] > budget_s).all():
        first = int(np.where(reached, least, np.inf).argmin())
        client = int(chosen[first])
        half = float(np.median(least[reached]))
        raise UserError(
            f"method.latency_s: {budget_s:g} s is below what any client needs of the "
            f"{reached.sum()} asked first that ever have a link. Client {client} needs least, "
            f"{least[first]:.3g} s: {compute[client]:.3g} for computing and "
            f"{sending[first]:.3g} for its smallest upload over the whole band; half of them "
            f"need {half:.3g} s at most. Raise it, or ask for fewer steps or a lower rank."
        )
    return {
        int(client): f"needs {seconds:.3g} s on average for computing and its smallest upload "
        f"over the whole band, above the budget of {budget_s:g} s"
        for client, seconds in zip(chosen, least, strict=True)
        if seconds > budget_s
    }
