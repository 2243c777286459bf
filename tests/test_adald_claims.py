"""The benchmark's claims are drawn from curves as an honest reader would."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "adald" / "claims.py"
spec = importlib.util.spec_from_file_location("adald_claims", FILE)
of = importlib.util.module_from_spec(spec)
spec.loader.exec_module(of)


def curve(*accuracy, bits=10.0, statuses=None):
    rounds = range(len(accuracy))
    return {
        "accuracy": list(accuracy),
        "total_uplink_bits": [bits * round for round in rounds],
        "total_downlink_bits": list(rounds),
        "statuses": statuses or {"delivered": 10},
        "over_model": 1.02,
    }


def claimed(**rows):
    """Claims of one group with the rows given, by id."""
    names = {"adald": of.ADALD, "coded": of.CODED, "zero": of.ZERO, "prob": of.ALL_LOGITS[1]}
    group = {
        names[key]: dict(enumerate(runs if isinstance(runs, list) else [runs]))
        for key, runs in rows.items()
    }
    found = of.claims({"one-token": group}, "command")
    assert len({each["id"] for each in found}) == len(found)
    return {each["id"]: each for each in found}


def test_a_ratio_is_of_the_bits_at_the_first_round_that_reached_the_target():
    found = claimed(
        prob=curve(0, 0.5, 0.7, 0.8, bits=100), adald=curve(0, 0.6, 0.78, 0.79), zero=curve(0, 0.2)
    )
    assert found["1-one-token-75"]["measured"] == [pytest.approx(20 / 300, abs=1e-4)]
    assert found["1-one-token-75"]["holds"]
    assert found["9-one-token-75"]["measured"] == [pytest.approx(22 / 303, abs=1e-4)]
    assert found["2-one-token-75"]["measured"] == ["not reached"]
    assert found["2-one-token-75"]["holds"]


def test_a_baseline_that_arrives_where_all_logits_do_not_is_no_evidence_against_it():
    rows = {"prob": curve(0, 0.6, 0.7, bits=100), "adald": curve(0, 0.76, 0.78)}
    found = claimed(**rows, zero=curve(0, 0.8, 0.8))
    assert found["2-one-token-75"]["measured"] == [0.0]
    assert not found["2-one-token-75"]["holds"]
    assert found["1-one-token-75"]["measured"] == [0.0] and found["1-one-token-75"]["holds"]


def test_a_seed_in_which_nobody_arrives_is_not_forgotten():
    low = curve(0, 0.5, 0.6)
    found = claimed(prob=[low, low], adald=[low, low], zero=[low, low], coded=[low, low])
    assert found["1-one-token-75"]["measured"] == ["neither reached it"] * 2
    assert not found["1-one-token-75"]["holds"]
    assert not found["4-one-token-75"]["holds"]


def test_uploads_that_did_not_fit_count():
    half = curve(0, 0.8, statuses={"delivered": 5, "withheld": 5})
    found = claimed(prob=curve(0, 0.8), adald=half)
    assert found["5-one-token-adald-mag"]["measured"] == [0.5]
    assert not found["5-one-token-adald-mag"]["holds"]
