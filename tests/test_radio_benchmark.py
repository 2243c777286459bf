"""The radio benchmark: its airtimes by hand, its claims, and that the committed page is theirs."""

import json
from pathlib import Path

import numpy as np
import pytest

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from benchmarks.radio import claims, cost, figure, page
from benchmarks.radio.distributions import (
    LEVELS,
    PAYLOAD_BITS,
    airtimes,
    curve,
    distributions,
    snr_db,
)

HERE = Path(page.__file__).parent
LINKS, ALLOCATION = (
    json.loads((HERE / f"{name}.json").read_text()) for name in ("links", "allocation")
)
# Two links in free space without fading and errors, 10 dB and 30 dB over a tenth of 10 MHz.
DISTANCES_M = [
    3e8 / (4e9 * np.pi * 3.5) * 10 ** ((23.0 + 169.0 - 60.0 - snr) / 20.0) for snr in (30.0, 10.0)
]
STILL = {
    "path_loss": "free-space", "fading": "none", "packet_error": 0.0, "bandwidth_hz": 10e6,
    "layout": "fixed", "radius_m": 20e3,
}  # fmt: skip


def two(allocation, distances_m=DISTANCES_M):
    spots = tuple((float(distance), 0.0) for distance in distances_m)
    return CellConfig(**STILL, positions_m=spots, allocation=allocation)


def test_airtimes_and_snr_by_hand():
    config = two("equal")
    links = Cell(config, 2, seed=0).links(1)
    assert snr_db(links, config) == pytest.approx([30.0, 10.0], abs=0.02)
    seconds, planned = airtimes(links, np.arange(2), config, Air(config, 0))
    # Half of 10 MHz each: 23.01 dB and 3.01 dB, of which the gap takes 2 dB; the first one's
    # log2(1 + 126.2) = 6.99 bit/s/Hz is above the cap of 5.55.
    by_hand = [1e6 / (5e6 * 5.55), 1e6 / (5e6 * np.log2(1 + 2.0 / 10**0.2))]
    assert seconds == pytest.approx(by_hand, rel=3e-3)
    assert planned == seconds.max()
    config = two("min-max-delay")
    together, sooner = airtimes(links, np.arange(2), config, Air(config, 0))
    assert np.ptp(together) < 1e-6 * sooner
    assert by_hand[0] < sooner < by_hand[1]


def test_who_is_in_outage_sends_nothing_and_is_not_waited_for():
    far = two("equal", [DISTANCES_M[0], 2e6])
    links = Cell(far, 2, seed=0).links(1)
    seconds, planned = airtimes(links, np.arange(2), far, Air(far, 0))
    assert seconds == pytest.approx([PAYLOAD_BITS / (10e6 * 5.55)])
    assert planned == seconds[0]
    seconds, planned = airtimes(links, np.array([1]), far, Air(far, 0))
    assert (seconds.size, planned) == (0, 0.0)


def test_a_curve_has_the_quantiles_of_its_levels():
    assert curve(np.linspace(0.0, 1000.0, 100_001)) == pytest.approx(
        [1000 * level for level in LEVELS], rel=1e-3
    )
    assert len(LEVELS) == 101


def test_distributions_count_everybody_once():
    row = distributions("urban-macro", clients=40, rounds=2, seeds=(5, 6))
    cell, config = (
        Cell(CellConfig(preset="urban-macro"), 40, seed=6),
        CellConfig(preset="urban-macro"),
    )
    seen = np.concatenate([snr_db(cell.links(round), config) for round in (1, 2)])
    assert row["median_snr_db_by_seed"][1] == pytest.approx(np.median(seen), rel=1e-3)
    # Out of reach on a single block of 180 kHz at -5 dB: 10.46 dB more than over 2 MHz.
    other = Cell(config, 40, seed=5)
    both = np.concatenate([seen, *(snr_db(other.links(round), config) for round in (1, 2))])
    assert row["outage"] == pytest.approx(np.mean(both < -5.0 - 10 * np.log10(2e6 / 180e3)))
    assert row["largest_min_max_over_equal"] <= 1.0 + 1e-9
    for name in ("equal", "min-max-delay"):
        assert (np.diff(row["client_s"][name]) >= 0).all()
        assert row["round_s"][name][50] > row["client_s"][name][50]


def rows_of(bytes_of):
    memory = [
        {"preset": "p", "option": "o", "clients": n, "rounds": r} for n, r in
        [(1_000, 1), (10_000, 1), (100_000, 1), (10_000, 10), (10_000, 100)]
    ]  # fmt: skip
    for row in memory:
        row["held_bytes"] = row["peak_bytes"] = bytes_of(row["clients"], row["rounds"])
    return memory


@pytest.mark.parametrize(
    "bytes_of, linear, constant",
    [
        (lambda n, r: 7e6 + 30 * n, True, True),
        (lambda n, r: 7e6 + 30 * n * np.log2(n), False, True),
        (lambda n, r: 7e6 + 30 * n + 3e4 * r, True, False),
    ],
)
def test_claims_tell_what_grows_from_what_does_not(bytes_of, linear, constant):
    found = claims.claims(
        LINKS["distributions"], {**LINKS["cost"], "memory": rows_of(bytes_of)}, ""
    )
    assert [claim["holds"] for claim in found if claim["id"] == "R5"] == [linear, constant]


@pytest.mark.parametrize("slow, holds", [(49.9, True), (50.1, False)])
def test_one_cell_above_the_budget_is_enough_to_fail(slow, holds):
    times = [dict(row, ms=1.0, processor_ms=1.0) for row in LINKS["cost"]["times"]]
    for row in times:
        if (row["preset"], row["option"], row["clients"]) == ("rural-macro", cost.PLAIN, 100_000):
            row["processor_ms"] = slow
    found = claims.claims(LINKS["distributions"], {**LINKS["cost"], "times": times}, "")
    (claim,) = (each for each in found if f"{cost.PLAIN}: processor ms" in each["what"])
    assert slow in claim["measured"]
    assert claim["holds"] is holds


def test_every_preset_is_timed_and_drawn():
    assert {preset for preset, _ in cost.cells()} == set(cost.PRESETS)
    drawn = [row["preset"] for row in LINKS["distributions"]]
    assert drawn == [preset for preset in cost.PRESETS if preset != "ideal"]
    timed = {(row["preset"], row["option"]) for row in LINKS["cost"]["times"]}
    assert timed == set(cost.cells())


def test_timing_and_memory_of_a_small_cell():
    row = cost.timed(CellConfig(), 200, rounds=3)
    assert row["range_ms"][0] <= row["ms"] <= row["range_ms"][1]
    # Twenty numbers for each client at most, and what Python needs for the cell itself.
    held = cost.remembered(CellConfig(), 20_000, 2)
    assert 20_000 * 8 < held["held_bytes"] < 20_000 * 20 * 8 + 1e5
    assert held["peak_bytes"] > held["held_bytes"]


def test_the_committed_page_and_claims_are_those_of_the_results():
    found = claims.claims(LINKS["distributions"], LINKS["cost"], LINKS["command"])
    assert found == LINKS["claims"]
    assert page.page(LINKS, ALLOCATION) == (HERE / "README.md").read_text()


@pytest.mark.parametrize("row", LINKS["distributions"], ids=lambda row: row["preset"])
def test_committed_snrs_are_those_of_the_present_code(row):
    config, setting = CellConfig(preset=row["preset"]), LINKS["setting"]
    cell = Cell(config, setting["clients"], LINKS["seeds"][0])
    seen = [snr_db(cell.links(round), config) for round in range(1, setting["rounds"] + 1)]
    assert row["median_snr_db_by_seed"][0] == pytest.approx(np.median(seen), abs=0.006)


def test_the_picture_has_every_curve_in_its_panel():
    picture = figure.draw(LINKS["distributions"], LEVELS)
    assert picture.layout.xaxis2.type == "log"
    lines = [trace for trace in picture.data if trace.mode == "lines" and trace.x[0] is not None]
    panels = [sum(trace.xaxis == axis for trace in lines) for axis in ("x", "x2")]
    assert panels == [len(LINKS["distributions"]), 2 * len(LINKS["distributions"])]
    symbols = {trace.marker.symbol for trace in picture.data if trace.mode == "markers"}
    assert len(symbols) == len(LINKS["distributions"])
