"""The benchmark's claims are computed as they are worded."""

import numpy as np
import pytest
import torch

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.scheduling.latency import LatencyConfig, Pieces
from benchmarks.soft import cases as of
from benchmarks.soft import channel, channel_page, claims, selection


def kept(accuracy, bits, latency=0.3):
    return {
        "accuracy": [0.5, *accuracy],
        "uplink_bits": bits,
        "worst_latency": latency,
        "round_latency": 2 * latency,
    }


def rows(**finals):
    names = {"ideal": of.IDEAL_ROW, "soft": of.SOFT, "svd": of.SVD, "tsfa": of.SCHEDULED}
    return {
        names[name]: {seed: kept([value - 0.1, value + 0.1], bits) for seed, value in enumerate(v)}
        for name, (v, bits) in finals.items()
    }


def test_ratio_gain_and_bits_are_relative_to_the_ideal_of_the_same_seed():
    found = claims.of_ideal(rows(ideal=([0.8, 0.9], 100), tsfa=([0.8, 0.7], 40)), of.SCHEDULED)
    assert found["accuracy"] == pytest.approx([1.0, 0.7 / 0.9])
    assert found["gain"] == pytest.approx([1.0, 0.5])
    assert found["bits"] == [0.4, 0.4]


def test_a_claim_holds_on_the_mean_of_paired_seeds():
    table = rows(
        ideal=([0.8, 0.8], 100), tsfa=([0.8, 0.7], 40), soft=([0.7, 0.7], 25), svd=([0.71, 0.7], 25)
    )
    by_id = {claim["id"]: claim for claim in claims.claims(table, "command")}
    assert by_id["1-accuracy"]["holds"] is False  # 0.9375 on average
    assert by_id["1-bits"]["holds"] is True
    assert by_id["2-svd"]["measured"] == pytest.approx([-0.01, 0.0])
    assert by_id["2-svd"]["holds"] is True  # half a point, not more
    assert "standard error 0.0050" in by_id["2-svd"]["what"]
    assert "2-random" not in by_id  # nobody measured it


def test_one_seed_has_no_standard_error():
    assert claims.standard_error([0.1]) == float("inf")


def test_what_a_target_costs_lies_between_evaluations():
    run = {"accuracy": [0.2, 0.4, 0.4, 0.8], "total_uplink_bits": [0, 100, 200, 300]}
    run["total_seconds"] = [0.0, 1.0, 2.0, 4.0]
    assert claims.to_target(run, 0.3, "total_uplink_bits") == pytest.approx(50)
    assert claims.to_target(run, 0.4, "total_uplink_bits") == pytest.approx(100)
    assert claims.to_target(run, 0.6, "total_seconds") == pytest.approx(3.0)
    assert claims.to_target(run, 0.9, "total_seconds") == float("inf")
    assert claims.at_seconds(run, 3.0) == pytest.approx(0.6)
    assert claims.at_seconds(run, 9.0) == pytest.approx(0.8)


def test_costs_are_compared_by_seed_where_the_reference_reaches_the_target():
    def run(accuracy, bits):
        points = list(range(0, bits * len(accuracy), bits))
        sums = {"total_uplink_bits": points, "total_seconds": points, "uplink_bits": points[-1]}
        return {"accuracy": accuracy, **sums}

    rises, slow = [0.5, 0.6, 0.7, 0.8, 0.8], [0.5, 0.5, 0.6, 0.7, 0.8]
    table = {
        of.IDEAL_ROW: {0: run(rises, 100), 1: run(rises, 100)},
        of.CODED: {0: run(slow, 10), 1: run([0.5] * 5, 10)},
    }
    found = claims.against(table, of.CODED, of.IDEAL_ROW, 0.98, of.IDEAL_ROW, "total_uplink_bits")
    target = 0.98 * 0.8
    assert found[0] == pytest.approx(
        (30 + 10 * (target - 0.7) / 0.1) / (200 + 1000 * (target - 0.7))
    )
    assert found[1] == float("inf")  # never reached, which a claim must not hide
    by_id = {claim["id"]: claim for claim in claims.claims(table, "command")}
    claim = by_id[f"8-bits-to-target-{of.CODED}"]
    assert claim["holds"] is False and claim["measured"][1] is None


CHANNEL = {"bandwidth_hz": 4e6, "fading": "none", "path_loss": "log-distance", "packet_error": 0.0}


def test_the_scheduler_alone_is_followed_as_uploads_would_go():
    """Without fading every client sends the same each round: seconds and error by hand."""
    cell = Cell(CellConfig(**CHANNEL), 4, seed=0)
    pieces = Pieces(10_000, np.full(4, 100_000.0), 1)
    scores = np.array([0.4, 0.3, 0.2, 0.1])
    config = LatencyConfig(control="limit", latency_s=0.15)
    life = channel.live(cell, pieces, config, scores, 3, 0.05)
    rate = rate_bps(1e6, cell.links(1).snr_hz, cell.config.rate)
    for client in range(4):
        count = max(n for n in range(5) if 10_000 + n * 100_000 <= 0.1 * rate[client])
        assert count >= 1
        expected = 0.05 + (10_000 + count * 100_000) / rate[client]
        assert life.seconds[:, client] == pytest.approx([expected] * 3)
        assert life.error[:, client] == pytest.approx([scores[count:].sum()] * 3)


def test_what_is_needed_alone_in_the_band_by_hand():
    cell = Cell(CellConfig(**CHANNEL), 4, seed=0)
    pieces = Pieces(10_000, np.full(4, 100_000.0), 1)
    rate = rate_bps(4e6, cell.links(1).snr_hz, cell.config.rate)
    found = channel.alone(cell, pieces, 0.05, rounds=3)
    assert found == pytest.approx(0.05 + 110_000 / rate)


def test_figures_of_a_life_by_hand():
    nan = np.nan
    life = channel.Life(
        np.array([[1.0, 3.0, nan], [2.0, nan, nan], [9.0, 9.0, 9.0]]),
        np.array([[0.5, 0.25, nan], [0.0, nan, nan], [1.0, 1.0, 1.0]]),
        np.array([4.0, 1.0, 9.0]),
    )
    found = channel.figures(life, 2, 2.0)
    assert found["error"] == pytest.approx((0.5 + 0.25 + 1 + 0 + 1 + 1) / 6)
    assert found["error_sent"] == pytest.approx(0.25)
    assert found["worst"] == pytest.approx(1.5)  # client 1; client 0 needs 1.5 s on average
    assert found["mean"] == pytest.approx(1.0)
    assert found["slowest"] == pytest.approx((3 + 2) / 2 / 2)
    assert (found["queue_end"], found["queue_max"]) == (0.5, 2.0)
    assert found["skipped"] == pytest.approx(0.5) and found["never"] == 1


def lived(v, rounds, worst, error, queue):
    figures = {"worst": worst, "error": error, "queue_end": queue}
    where = {"cell": "weak", "scores": "flat", "scheme": channel_page.TSFA}
    return where | {"v": v, "rounds": rounds} | figures


def test_claims_of_latency_and_of_v_are_computed_as_they_are_worded():
    rows = [
        lived(1.0, 100, [1.05, 1.2], [0.4, 0.4], [1.0, 2.0]),
        lived(1.0, 400, [1.01, 1.02], [0.4, 0.5], [1.0, 2.0]),
        lived(3.0, 400, [1.0, 1.04], [0.5, 0.3], [3.0, 3.0]),
    ]
    by_id = {claim["id"]: claim for claim in channel_page.claims(rows, "command")}
    assert by_id["4-latency-weak-flat-1"]["measured"] == pytest.approx(
        [1.2 / 1.1, 1.02 / 1.05], abs=1e-4
    )
    assert by_id["4-latency-weak-flat-1"]["holds"] is False
    assert by_id["4-latency-weak-flat-3"]["holds"] is True
    assert by_id["4-error-weak-flat"]["measured"] == [0.45, 0.4]
    assert by_id["4-error-weak-flat"]["holds"] is True
    assert by_id["4-queue_end-weak-flat"]["holds"] is True
    assert "4-latency-weak-flat-sifted" not in by_id  # as nobody was left out
    few = lived(3.0, 400, [1.0, 1.06], [0.5, 0.3], [3.0, 3.0]) | {"scheme": channel_page.SIFTED}
    (sifted,) = (c for c in channel_page.claims([*rows, few], "") if c["id"].endswith("sifted"))
    assert sifted["measured"] == pytest.approx([1.06 / 1.05], abs=1e-4) and not sifted["holds"]
    rows[-1]["error"] = [0.5, 0.5]
    assert {c["id"]: c["holds"] for c in channel_page.claims(rows, "")}[
        "4-error-weak-flat"
    ] is False


def test_ways_to_choose_agree_on_what_is_best():
    """The three SVDs that are timed give one product: else they would not be comparable."""
    ways = selection.ways(24, 4)
    for what in selection.OF.values():
        full = ways[f"full of {what}"]()
        exact = ways[f"qr of {what}"]()
        assert torch.allclose(exact.b @ exact.a, full, atol=1e-4)
        torch.manual_seed(0)
        assert torch.allclose(ways[f"lowrank of {what}"](), full, atol=1e-2)


def test_a_score_is_compared_with_the_svd_of_the_same_thing():
    names = [selection.NORMS, selection.CHANGE]
    times = {name: {"ms": 1.0 + n} for n, name in enumerate(names)}
    for svd in selection.SVDS:
        times |= {f"{svd} of {of}": {"ms": 40.0 + 10.0 * n} for n, of in enumerate(
            selection.OF.values())}  # fmt: skip
    rows = {f"d {width}, r {rank}": times for width, rank in selection.SIZES}
    found = {claim["id"]: claim for claim in selection.claims(rows)}
    assert found["3-norms-qr"]["measured"] == [2.5] * 3 and found["3-norms-qr"]["holds"] is True
    assert found["3-change-qr"]["measured"] == [4.0] * 3
    assert len(found) == 6
