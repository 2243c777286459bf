"""Costs read from rows whose sums are done by hand."""

import math

from airtune.federation.costs import Costs, Spread
from airtune.federation.records import BroadcastRow, RoundRow, UploadRow, as_dict, as_row

ROWS = [
    RoundRow(0),
    BroadcastRow(1, 1000, seconds=0.5, joules=0.4, rate_bps=2000.0, listeners=2, heard=2),
    UploadRow(1, 0, "delivered", bits=100, seconds=1.0, joules=2.0, compute_seconds=0.5,
              compute_joules=3.0),
    UploadRow(1, 1, "late", bits=300, seconds=4.0, joules=6.0, compute_seconds=0.5,
              compute_joules=5.0),
    UploadRow(1, 2, "skipped", "outage"),
    RoundRow(1, asked=3, delivered=1, uplink_bits=400, downlink_bits=1000, seconds=3.5),
    UploadRow(2, 2, "skipped", "outage"),
    RoundRow(2, asked=1, seconds=0.0),
]  # fmt: skip


def test_the_sums_are_those_done_by_hand():
    costs = Costs.of(ROWS)
    assert costs.rounds == 2
    assert costs.uplink_bits == Spread.of([400, 0])
    assert costs.upload_bits.mean == 200 and costs.upload_bits.median == 200
    assert costs.finish_s == Spread.of([1.5, 4.5])
    # The broadcast and the longest upload of the first round; nothing was sent in the second.
    assert costs.airtime_s.mean == (0.5 + 4.0) / 2
    assert costs.round_s.mean == 1.75
    # Listening is 0.2 J for each of two.
    assert costs.device_j == Spread.of([5.2, 11.2])
    assert costs.compute_j.mean == 4.0
    assert costs.client_j == Spread.of([2.6, 5.6, 0.0])
    assert costs.arrived == 0.25
    assert (costs.always, costs.sometimes, costs.never) == (1, 0, 2)
    assert costs.failures == {"skipped": 2, "late": 1}
    assert costs.reasons == {"outage": 2}


def test_a_quantile_of_95_percent_leaves_one_in_twenty_above():
    spread = Spread.of(list(range(1, 101)))
    assert sum(value > spread.high for value in range(1, 101)) == 5
    assert math.isnan(Spread.of([]).median)


def test_rows_are_read_as_they_were_written():
    assert [as_row(as_dict(row)) for row in ROWS] == ROWS
