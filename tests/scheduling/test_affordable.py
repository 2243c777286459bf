"""What a budget affords, worked out again with Shannon's formula."""

import numpy as np
import pytest

from airtune.errors import UserError
from airtune.radio.config import CellConfig
from airtune.radio.rate import RateModel
from airtune.scheduling.affordable import affordable_pieces
from airtune.scheduling.latency import Pieces

CELL = CellConfig(
    bandwidth_hz=2e6, packet_error=0.0, rate=RateModel(gap_db=0, max_efficiency=100, min_snr_db=-30)
)  # fmt: skip
PIECES = Pieces(fixed_bits=1000, bits=np.full(8, 50e3), least=1)


def afford(snr_hz, budget=0.5, compute=0.1, pieces=PIECES, cell=CELL):
    snr_hz = np.asarray(snr_hz, dtype=float)
    alone = 1 / (2e6 * np.log2(1 + snr_hz / 2e6))
    return affordable_pieces(pieces, snr_hz, alone, np.full(len(snr_hz), compute), budget, cell, 4)


def test_the_budget_less_computing_is_spent_on_whole_and_parts_of_pieces():
    snr_hz = np.array([1e6, 3e5])
    rate = 0.5e6 * np.log2(1 + snr_hz / 0.5e6)  # four share two megahertz
    assert afford(snr_hz) == pytest.approx((0.4 * rate - 1000) / 50e3)


def test_a_poor_link_sends_a_piece_in_some_rounds():
    rate = 0.5e6 * np.log2(1 + 1e6 / 0.5e6)
    (count,) = afford([1e6], budget=0.155)  # with the whole band it sends one in time
    assert count == pytest.approx(0.055 * rate / 51e3)
    assert 0 < count < 1


def test_no_more_than_all_and_than_the_kept_ratio():
    assert afford([1e9]) == [8.0]
    assert afford([1e9], pieces=Pieces(1000, np.full(8, 50e3), 1, limit=2)) == [2.0]


def test_more_time_affords_more():
    counts = [float(afford([1e6], budget=budget)[0]) for budget in (0.2, 0.4, 0.8)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2]


def test_who_fails_with_the_whole_band_has_no_part_and_if_all_do_it_is_said():
    counts = afford([1e6, 1e3], budget=0.5)
    assert np.isnan(counts[1])
    assert counts[0] > 0
    with pytest.raises(UserError, match=r"method\.latency_s: 0\.11 s is below .* client 0 needs"):
        afford([1e6, 1e3], budget=0.11)


def test_repeats_of_packets_take_their_part_of_the_budget():
    snr_hz = np.array([1e6, 3e5])
    rate = 0.8 * 0.5e6 * np.log2(1 + snr_hz / 0.5e6)
    erring = CELL.model_copy(update={"packet_error": 0.2})
    assert afford(snr_hz, cell=erring) == pytest.approx((0.4 * rate - 1000) / 50e3)
