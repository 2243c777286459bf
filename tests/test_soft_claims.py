"""The benchmark's claims are computed as they are worded."""

import pytest

from benchmarks.soft import cases as of
from benchmarks.soft import claims


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
