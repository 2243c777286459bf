"""Claims on alignment: what counts as a gain, and as too few runs to say."""

from pathlib import Path

import pytest

from airtune.experiment import Experiment
from benchmarks.pwff import alignment_cases as of
from benchmarks.pwff.alignment import page
from benchmarks.pwff.alignment_claims import better_than_singles, claims, gains, regret

FRONT = [[0.5, 1.0], [1.0, 0.5]]
START = {"reward": [0.2] * 5, "helpful": [0.2] * 5, "safe": [0.9] * 5}


def kept(*reward, helpful=0.5, safe=0.5, **more):
    return {"reward": list(reward), "helpful": [helpful] * 5, "safe": [safe] * 5, "kl": [2.0] * 5,
            "start": START, "front": FRONT, "judges": None, "judges_bits": None,
            "upload_bits": 100, "download_bits": 150, "model_bits": 1000, "wall_seconds": 5.0,
            **more}  # fmt: skip


def even(value):
    return kept(*[value] * 5)


def test_gains_are_paired_by_seed_and_one_seed_decides_nothing():
    table = {
        ("PWFF+", "caring"): {0: even(0.6), 1: even(0.7)},
        ("local", "caring"): {0: even(0.5), 1: even(0.62)},
        ("equal weights", "caring"): {1: even(0.6)},
    }
    assert gains(table, "caring", "PWFF+", "local") == pytest.approx([0.1, 0.08])
    found = {claim["id"]: claim for claim in claims(table, "command")}
    assert found["4-caring-PWFF+-local"]["holds"] is True  # 0.09 beside an error of 0.01
    assert found["4-caring-PWFF+-equal weights"]["holds"] is None
    table["local", "caring"][1] = even(0.8)  # +0.1 and -0.1
    found = {claim["id"]: claim for claim in claims(table, "command")}
    assert found["4-caring-PWFF+-local"]["holds"] is False


def test_the_distance_is_to_the_best_point_of_each_clients_weights():
    # a = 0: 1; 1/4: 0.875; 1/2: 0.75; 3/4: 0.875; 1: 1.
    assert regret(kept(1.0, 0.875, 0.75, 0.875, 1.0)) == pytest.approx(0.0)
    assert regret(kept(0.9, 0.775, 0.65, 0.775, 0.9)) == pytest.approx(0.1)


def test_clients_are_served_better_only_if_by_every_single_weight():
    singles = {
        ("equal weights", "caring"): {0: kept(0.5, 0.5, 0.5, 0.5, 0.5)},
        **{(row, "caring"): {0: kept(0.1, 0.6, 0.1, 0.1, 0.1)} for row in of.SINGLE},
    }
    own = {("PWFF+", "caring"): {0: kept(0.6, 0.55, 0.51, 0.4, 0.9)}}
    assert better_than_singles(singles | own, "caring", "PWFF+") == [3]
    assert better_than_singles(own, "caring", "PWFF+") == []


def test_rewards_below_the_start_are_seen_with_the_client_who_lost_most():
    fell = {
        **kept(*[0.5] * 5),
        "helpful": [0.0, 0.3, 0.3, 0.3, 0.35], "safe": [0.9] * 5,
    }  # fmt: skip
    table = {("MGDA", "harmless"): {0: fell, 1: fell}}
    (claim,) = [c for c in claims(table, "command") if c["id"] == "5-MGDA"]
    assert claim["measured"] == pytest.approx([0.05, 0.0, -0.2, 0.0])
    assert claim["holds"] is True
    table["MGDA", "harmless"] = {0: kept(*[0.5] * 5, safe=0.8), 1: kept(*[0.5] * 5, safe=0.8)}
    (claim,) = [c for c in claims(table, "command") if c["id"] == "5-MGDA"]
    assert claim["holds"] is False


def test_every_planned_case_is_an_experiment():
    listed = list(of.cases(Path("nowhere"), of.PLAN))
    assert len({case.folder for case in listed}) == len(listed)
    for case in listed:
        experiment = Experiment(**case.values)
        assert experiment.method.preferences == list(of.PREFERENCES)
        alone = case.row == "local"
        assert (experiment.method.private == ["*"]) == alone
        if case.row in (*of.SINGLE, "equal weights"):
            assert experiment.method.private == []
            assert experiment.method.trains_for == of.SINGLE.get(case.row, 0.5)
    assert {c.folder for c in of.cases(Path("nowhere"), of.SHORT)} <= {c.folder for c in listed}


def test_the_page_has_a_line_for_each_row():
    table = {("PWFF", "caring"): {0: even(0.6)}, ("PFIT, restart", "caring"): {0: even(0.5)}}
    results = {"claims": claims(table, "command"), "machine": "", "command": ""}
    text = page(results, table)
    assert "| untrained | 1 | 0.200 |" in text
    assert "| PFIT, restart | 1 | 0.500 |" in text
    assert "| 6-uplink |" in text
