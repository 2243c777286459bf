"""The offline choice on a tiny model: pilots are runs, and the curve is what it says."""

import numpy as np
import pytest

import airtune
from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.data.sources import load_table
from airtune.planning.pilot import dense_pilot, with_rank
from airtune.planning.proxy import load_proxy
from airtune.planning.rank import parse_by, parse_ranks, plan_rank
from airtune.report.rank_table import rank_table

CELL = {"preset": "urban-micro", "radius_m": 400, "power_dbm": 10, "bandwidth_hz": 5e5}
METHOD = {"name": "soft", "latency_s": 0.05, "orthogonality": 0.0}


@pytest.fixture
def experiment(small):
    def described(**sections):
        sections = {"cell": CELL, "method": METHOD} | sections
        return Experiment(**small(**sections))

    return described


def test_a_dense_pilot_is_the_run_of_an_ideal_cell(experiment, tmp_path):
    own = experiment(clients={"test_fraction": 0})
    table = load_table(own.data, own.seed)
    pilot = dense_pilot(own, table, 3, np.full(5, 4.0))
    ideal = experiment(
        clients={"test_fraction": 0}, cell="ideal", method=METHOD | {"control": "none"}
    )
    run = airtune.run(ideal, tmp_path / "run")
    losses = [pilot.rounds[0].before, *(each.after for each in pilot.rounds)]
    assert losses == run.history["loss"].tolist()
    noted = run.history["covariance_of_change"].tolist()[1:]
    assert [each.covariance for each in pilot.rounds] == pytest.approx([x**2 for x in noted])
    for each in pilot.rounds:  # four of four components: nothing is missing
        assert each.thin == each.after
        assert each.thin_dropped == each.dropped == pytest.approx(0.0, abs=1e-12)
    learned, matrices = run.adapter, build(own, table).method.components.parts
    for matrix, change in zip(matrices, pilot.changes, strict=True):
        a, b = (learned[f"{matrix}.lora_{factor}.weight"] for factor in "AB")
        assert (change.b @ change.a).allclose(b @ a, atol=1e-6)  # B starts at zero


@pytest.mark.parametrize(
    ("options", "pieces"),  # a quarter of four components of four matrices
    [({}, 1.0), ({"pool": "all"}, 4.0), ({"send": "value"}, 1.0), ({"train_a": False}, 1.0)],
)
def test_a_pilot_cut_to_a_kept_ratio_is_a_run_that_keeps_it(experiment, tmp_path, options, pieces):
    own = experiment(clients={"test_fraction": 0}, method=METHOD | options)
    pilot = dense_pilot(own, load_table(own.data, own.seed), 1, np.full(5, pieces))
    kept = METHOD | options | {"control": "none", "kept_ratio": 0.25}
    thin = experiment(clients={"test_fraction": 0}, cell="ideal", method=kept, train={"rounds": 1})
    run = airtune.run(thin, tmp_path / "run")
    assert pilot.rounds[0].thin == run.history["loss"].iloc[-1]
    assert pilot.rounds[0].thin != pilot.rounds[0].after
    assert 0.0 < pilot.rounds[0].dropped < 1.0


def test_clients_that_cannot_meet_the_budget_send_nothing(experiment):
    own = experiment(clients={"test_fraction": 0})
    table = load_table(own.data, own.seed)
    alone = np.array([4.0, np.nan, np.nan, np.nan, np.nan])
    pilot = dense_pilot(own, table, 1, alone)
    assert pilot.rounds[0].thin != pilot.rounds[0].after
    assert dense_pilot(own, table, 1, np.full(5, 0.3)).rounds[0].thin is None  # rounds to nothing


def test_the_surrogate_curve_falls_where_it_should_and_its_choice_is_its_least(experiment):
    seen = []
    found = plan_rank(experiment(), [1, 2, 8], None, 2, "surrogate", seen.append)
    assert seen == [8, 2, 1]
    rows = found["ranks"]
    assert [row["rank"] for row in rows] == [1, 2, 8]
    phi, dropped, kept = ([row[key] for row in rows] for key in ("phi", "dropped", "kept"))
    assert phi == sorted(phi, reverse=True)
    assert phi[-1] == pytest.approx(0.0, abs=1e-9)
    assert dropped == sorted(dropped)
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 1
    for row in rows:
        assert row["slices"] == pytest.approx(row["kept"] * row["rank"])
        u = sum(found["weights"][key] * row[key] for key in ("phi", "dropped", "covariance"))
        assert row["u"] == pytest.approx(u)
    best = min(rows, key=lambda row: row["u"])
    assert found["chosen"] == best["rank"]
    assert found["alpha"] == 4 * best["rank"]  # 16 of rank 4, as described
    assert "no --proxy" in found["proxy"]


@pytest.mark.parametrize("method", ["soft", "soft_coded"])
def test_by_pilot_takes_the_least_loss_of_the_experiment_itself(
    experiment, data_files, tmp_path, method
):
    own = experiment(method=METHOD | {"name": method})
    found = plan_rank(own, [1, 4], data_files[0], 2, "pilot")
    rows = found["ranks"]
    assert found["chosen"] == min(rows, key=lambda row: row["loss"])["rank"]
    assert rows[0]["uplink_bits"] > 0
    assert ("slices" in rows[0]) == (method == "soft")  # the coded form drops no component
    assert rank_table(found).row_count == 2
    assert rows[0]["start_loss"] == rows[1]["start_loss"]
    assert data_files[0] in found["proxy"]
    # The same as a run on the proxy's rows.
    proxy = load_proxy(own, data_files[0])
    files = {part: tmp_path / f"{part}.csv" for part in ("train", "test")}
    for part, path in files.items():
        getattr(proxy.table, part)[["text", "label"]].to_csv(path, index=False)
    described = with_rank(own, 1).model_dump()
    described["data"] |= {part: str(path) for part, path in files.items()}
    described["train"]["rounds"] = 2
    run = airtune.run(Experiment(**described), tmp_path / "run")
    assert rows[0]["loss"] == run.history["loss"].iloc[-1]
    assert rows[0]["uplink_bits"] == run.summary["uplink_bits"]


def test_proxy_texts_are_training_texts_and_none_is_learned_and_measured(experiment):
    own = experiment()
    whole = load_table(own.data, own.seed)
    table = load_proxy(own, None).table
    train, test = (frame["text"].tolist() for frame in (table.train, table.test))
    assert sorted(train + test) == sorted(whole.train["text"])  # fewer than the 2000 that are drawn
    assert len(test) == len(whole.train) // 4
    assert load_proxy(own, None).table.test.equals(table.test)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"method": {"name": "fedavg"}},
            r"method\.name: ranks are chosen for soft and soft_coded only .*'fedavg'.*latency_s",
        ),
        ({"method": METHOD | {"control": "none"}}, r"method\.control: none keeps to no budget"),
        ({"cell": "ideal"}, r"cell\.ideal: nothing takes time"),
        ({"adapter": {"kind": "ia3"}}, r"adapter\.kind: ia3 has no rank"),
        ({"method": METHOD | {"latency_s": 1e-4}}, r"method\.latency_s: 0\.0001 s is below"),
    ],
)
def test_what_has_no_rank_or_no_budget_is_refused(experiment, sections, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_rank(experiment(**sections), [1, 2])


def test_the_surrogate_has_nothing_to_count_where_no_component_is_dropped(experiment):
    coded = experiment(method=METHOD | {"name": "soft_coded"})
    with pytest.raises(
        UserError, match="--by: the surrogate counts dropped components, and soft_coded"
    ):
        plan_rank(coded, [1, 2], by="surrogate")


def test_bottlenecks_beside_lora_travel_whole_in_pilots_too(experiment, tmp_path):
    adapter = {"kind": "lora+bottleneck", "bottleneck": 2}
    own = experiment(clients={"test_fraction": 0}, adapter=adapter)
    pilot = dense_pilot(own, load_table(own.data, own.seed), 1, np.full(5, 1.0))
    kept = METHOD | {"control": "none", "kept_ratio": 0.25}
    thin = experiment(
        clients={"test_fraction": 0}, adapter=adapter, cell="ideal", method=kept,
        train={"rounds": 1},
    )  # fmt: skip
    run = airtune.run(thin, tmp_path / "run")
    assert pilot.rounds[0].thin == run.history["loss"].iloc[-1] != pilot.rounds[0].after


def test_a_rank_above_the_width_is_refused_before_any_pilot(experiment):
    seen = []
    with pytest.raises(UserError, match="above the width 32"):
        plan_rank(experiment(), [1, 64], on_pilot=seen.append)
    assert seen == []


@pytest.mark.parametrize(
    ("by", "which"), [("surrogate", "the pilot of rank 2"), ("pilot", "a pilot")]
)
def test_a_pilot_that_diverges_is_said(experiment, by, which):
    hot = {"learning_rate": 1e30, "clip_norm": None, "optimiser": "sgd"}
    with pytest.raises(UserError, match=rf"train\.learning_rate: {which} .*diverged"):
        plan_rank(experiment(train=hot), [1, 2], by=by)


def test_no_rounds_are_refused(experiment):
    with pytest.raises(UserError, match="--rounds: 0 is no number"):
        plan_rank(experiment(), [1, 2], rounds=0)


def test_ranks_are_read_in_any_order():
    assert parse_ranks("8, 2,1,2") == [1, 2, 8]


@pytest.mark.parametrize("text", ["", "1,,2", "0,1", "-1,2", "1.5,2", "two,4", "4"])
def test_what_is_no_list_of_ranks_is_refused(text):
    with pytest.raises(UserError, match="--ranks"):
        parse_ranks(text)


def test_an_unknown_way_of_choosing_names_the_nearest():
    with pytest.raises(UserError, match=r"--by: there is no way 'pilots'; did you mean 'pilot'\?"):
        parse_by("pilots")
