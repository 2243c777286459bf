import io
from dataclasses import replace

import pandas as pd
from rich.console import Console

from airtune.report.comparison import compare
from airtune.report.tables import compare_table, run_table
from airtune.report.view import RunView


def text(table, width=80):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(table)
    return file.getvalue()


def row(rendered, label):
    return next(" ".join(line.split()) for line in rendered.splitlines() if label in line)


def small_run(name="small"):
    """Two rounds of two clients, by hand."""
    history = pd.DataFrame(
        {
            "round": [0, 1, 2],
            "accuracy": [0.25, None, 0.5],
            "total_uplink_bits": [0.0, 2e6, 3e6],
            "total_downlink_bits": [0.0, 1e6, 2e6],
            "total_seconds": [0.0, 100.0, 200.0],
            "total_joules": [0.0, 600.0, 900.0],
        }
    )
    uploads = pd.DataFrame(
        {
            "round": [1, 1, 2, 2],
            "client": [0, 1, 0, 1],
            "status": ["delivered", "delivered", "late", "outage"],
        }
    )
    summary = {
        "method": "fedavg", "model": "tiny", "rounds": 2, "clients": 2, "accuracy": 0.5,
        "best_accuracy": 0.5, "personal_accuracy": None, "perplexity": None, "uplink_bits": 3e6,
        "downlink_bits": 2e6, "seconds": 200.0, "joules": 900.0, "wall_seconds": 4.5,
        "trained_parameters": 1234, "payload_bits": 1e6, "delivered": 2, "asked": 4,
    }  # fmt: skip
    return RunView(name, history, uploads, summary, "{}")


def test_a_run_says_what_it_cost():
    shown = text(run_table(small_run()))
    assert "fedavg · tiny · 2 rounds · 2 clients" in shown
    assert row(shown, "Accuracy") == "Accuracy 25.0 % → 50.0 % best 50.0 %"
    assert row(shown, "Uplink") == "Uplink 3 Mbit 1.5 Mbit per delivered message"
    assert row(shown, "Downlink") == "Downlink 2 Mbit 1 Mbit per round, broadcast"
    assert row(shown, "Simulated") == "Simulated time 3 min 20 s 1 min 40 s per round"
    assert row(shown, "Energy") == "Energy 900 J 450 J per delivered message"
    assert row(shown, "Uploads") == "Uploads delivered 2 of 4 1 outage, 1 late"
    assert row(shown, "reach") == "To reach 47.5 % 3 Mbit, 3 min 20 s round 2; 95 % of the best"
    assert row(shown, "Wall") == "Wall time 4.5 s on this computer"
    assert "Personal" not in shown
    assert "Perplexity" not in shown


def test_wall_time_can_be_left_out():
    assert "Wall" not in text(run_table(small_run(), wall=False))


def test_a_summary_may_know_nothing():
    view = small_run()
    empty = dict.fromkeys(view.summary)
    blank = replace(view, summary=empty, history=view.history.assign(accuracy=None))
    assert "small" in text(run_table(blank))
    assert "What each run learned" in " ".join(text(compare_table([blank])).split())


def test_nothing_delivered_divides_by_nothing():
    view = small_run()
    shown = text(run_table(replace(view, summary=view.summary | {"delivered": 0})))
    assert row(shown, "Uplink") == "Uplink 3 Mbit"


def test_runs_side_by_side():
    worse = small_run("[bold]worse")
    worse = replace(
        worse,
        history=worse.history.assign(accuracy=[0.25, 0.26, 0.4]),
        summary=worse.summary | {"accuracy": 0.4, "uplink_bits": 4.5e9, "seconds": None},
    )
    shown = text(compare_table([small_run(), worse]), 120)
    assert "Target: 47.5 % accuracy (95 % of the best that any run reached)" in shown
    assert "Personal" not in shown
    assert row(shown, "small") == "small 50.0 3.00 2.00 3.33 900 3.00 3.33"
    # Markup in a name is a name; all of a column is in one unit; "not reached" takes two lines.
    assert row(shown, "worse") == (
        "[bold]worse 40.0 4500 2.00 – 900 not not"  # noqa: RUF001
    )


def test_a_target_can_be_asked_for():
    shown = text(compare_table([small_run()], target=0.2), 120)
    assert "Target: 20.0 % accuracy (as asked)" in shown
    assert row(shown, "small") == "small 50.0 3.00 2.00 3.33 900 0 0"


def test_scores_of_clients_stand_beside_the_servers():
    view = small_run()
    scores = {"helpful": 0.25, "personal_helpful": 0.5, "personal_reward": 0.75}
    shown = text(run_table(replace(view, summary=view.summary | {"scores": scores})), 120)
    assert row(shown, "Helpful").endswith("the server's model 0.250")
    assert row(shown, "Reward").endswith("mean over clients' own models")


def test_too_many_columns_become_rows(make_view):
    views = [make_view(name, rounds=4, seed=i) for i, name in enumerate(["one", "two"])]
    wide = text(compare_table(views, width=80))
    assert wide == text(compare_table(views))
    lines = text(compare_table(views, width=40), 40).splitlines()
    head = next(line for line in lines if "one" in line)
    assert head.split() == ["one", "two"]
    assert not any("…" in line for line in lines)
    for word in ("Uplink", "Energy"):
        cells = next(line for line in lines if line.strip().startswith(word)).split()
        column = next(c for c in compare(views).columns if c.header == word)
        assert cells[-2:] == column.cells


def test_six_runs_fit_80_columns(make_view):
    names = ["fedavg", "soft: top-k 10 %", "a-rather-long-directory-name-seed-3", "d", "e", "f"]
    views = [
        make_view(name, rounds=12, seed=i, payload_bits=10 ** (4 + i), causal=i == 5)
        for i, name in enumerate(names)
    ]
    lines = text(compare_table(views)).splitlines()
    head = " ".join(lines[1:5])
    for word in ("Accuracy", "Personal", "PPL", "Uplink", "Downlink", "Time", "Energy", "target"):
        assert word in head
    assert "…" not in "".join(lines)
