"""What a deadline leaves: bits that arrive in time, who is out of reach, how little power does."""

from __future__ import annotations

import numpy as np

from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.delivery import likely_tries, safe_packets
from airtune.radio.packet_errors import packet_errors
from airtune.radio.rate import bandwidth_for_rate_hz, in_outage, rate_bps
from airtune.radio.units import Bools, Floats, Ints
from airtune.scheduling.goodput import widest_useful_hz
from airtune.scheduling.power import least_energy_w, least_power_w

_HALVINGS = 50  # of the ratio of the largest rate to the least
_NEAR = 1e-6  # shares that are no further apart are as good as one


def bits_by_deadline(
    planned_hz: Floats, mean_hz: Floats, share: Floats, compute: Floats, config: CellConfig
) -> Floats:
    """Return the bits that arrive by the deadline with the repeats that errors will cost, [n].

    ``planned_hz`` and ``mean_hz`` are P g / (N0 F) in Hz at the power in use, as the server plans
    with and averaged over fading; ``share`` is in Hz and ``compute`` in seconds. Infinite without a
    deadline.
    """
    if config.deadline_s is None:
        return np.full(share.size, np.inf)
    left = np.maximum(config.deadline_s - compute, 0.0)
    rate = rate_bps(share, planned_hz, config.rate)
    q, law = packet_errors(config, share, planned_hz, planned_hz, mean_hz)
    limit, layer = config.max_transmissions, config.link_layer
    packets = rate * left / config.packet_bits
    passes = likely_tries(packets, q, limit, law, layer) - 1.0
    left = np.maximum(left - passes * config.retransmission_delay_s, 0.0)
    packets = safe_packets(rate * left / config.packet_bits, q, limit, law, layer)
    return np.floor(packets * config.packet_bits)


def out_of_reach(
    links: Links, clients: Ints, smallest: Floats, compute: Floats, config: CellConfig
) -> dict[int, str]:
    """Return who can send nothing of use even alone in the band, with the reason.

    In outage, or computing and the ``smallest`` [n] bits do not meet the deadline over as much of
    the band as is of use. Nobody is in an ideal cell.
    """
    if config.ideal:
        return {}
    unheard = in_outage(links.planned_snr_hz[clients], config.rate)
    found = {int(client): "outage" for client in clients[unheard]}
    heard = clients[~unheard]
    whole = widest_useful_hz(links, heard, config)
    link = links.planned_snr_hz[heard], links.mean_snr_hz[heard]
    bits = bits_by_deadline(*link, whole, compute[~unheard], config)
    late = bits < smallest[~unheard]
    for client, least in zip(heard[late], smallest[~unheard][late], strict=True):
        found[int(client)] = too_late(least)
    return found


def least_shares_hz(
    links: Links, clients: Ints, smallest: Floats, compute: Floats, config: CellConfig
) -> Floats:
    """Return the least share in Hz with which ``smallest`` bits arrive by the deadline, [n].

    Repeats included: at least what :func:`bandwidth_for_rate_hz` says of the bits in the time that
    is left, at most as much of the band as is of use, and between them by bisection on whether
    :func:`bits_by_deadline` has enough. The clients must be in reach (:func:`out_of_reach`).
    """
    snr_hz, mean_hz = links.planned_snr_hz[clients], links.mean_snr_hz[clients]
    if config.deadline_s is None:
        return np.zeros(clients.size)

    def enough(share: Floats) -> Bools:
        bits = bits_by_deadline(snr_hz, mean_hz, share, compute, config)
        return np.asarray(bits >= smallest, dtype=np.bool_)

    rate = smallest / np.maximum(config.deadline_s - compute, 1e-12)
    high = widest_useful_hz(links, clients, config)
    low = np.minimum(bandwidth_for_rate_hz(rate, snr_hz, config.rate), high)
    # Without errors that is all, but for rounding.
    least = np.minimum(low * (1.0 + 1e-9), high)
    high = np.where(enough(least), least, high)
    while (high > low * (1.0 + _NEAR)).any():
        middle = np.sqrt(low * high)
        fits = enough(middle)
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return high


def too_late(smallest_bits: float) -> str:
    """Return why a client is skipped that cannot send its smallest payload in time."""
    return f"cannot send {smallest_bits:.0f} bits by the deadline"


def least_energy_powers_w(
    links: Links, clients: Ints, share: Floats, payload: Floats, compute: Floats,
    config: CellConfig,
) -> Floats:  # fmt: skip
    """Return the powers in W at which payloads arrive by the deadline for least energy, [n].

    The smallest power that meets the deadline, repeats included, or where that costs less, as the
    circuit is on for a shorter time, the one of least energy per bit. Full power for those whose
    ``payload`` [n] does not arrive with any.
    """
    full, model = config.power_w, config.rate
    snr_hz, mean_hz = links.planned_snr_hz[clients], links.mean_snr_hz[clients]

    def kept(power: Floats) -> Bools:
        dimmed = power / full
        bits = bits_by_deadline(snr_hz * dimmed, mean_hz * dimmed, share, compute, config)
        return np.asarray(bits >= payload, dtype=np.bool_)

    def powers(rate: Floats) -> Floats:
        return np.minimum(least_power_w(rate, share, snr_hz, full, model), full)

    high = rate_bps(share, snr_hz, model)
    low = 1e-9 * high
    for _ in range(_HALVINGS):
        middle = np.sqrt(low * high)
        enough = kept(powers(middle))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    efficient = least_energy_w(share, snr_hz, full, config.circuit_power_w, model)
    power = np.maximum(powers(high * (1.0 + 1e-9)), efficient)
    return np.where(kept(power), power, full)
