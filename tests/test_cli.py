"""The installed `airtune`, started as a user starts it: another process, an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from airtune.cli import main
from airtune.results import Run

AIRTUNE = Path(sys.executable).with_name("airtune")


@pytest.fixture
def airtune(tmp_path):
    """Function that runs `airtune` in an empty folder and returns the finished process."""
    home = tmp_path / "work"
    home.mkdir()
    environment = {**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(*arguments, check=True):
        done = subprocess.run(
            [str(AIRTUNE), *map(str, arguments)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        return done

    run.home, run.environment = home, environment
    return run


@pytest.fixture
def description(small, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small()))
    return path


def test_a_user_runs_compares_reports_and_exports(airtune, description):
    done = airtune("run", description)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("round")][-1].startswith("round 3/3 | acc")
    assert "\x1b" not in done.stdout  # a pipe gets plain text
    folder = airtune.home / "runs" / "small"
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "adapter", "checkpoint", "experiment.yaml", "ledger.jsonl", "report.html",
        "summary.json",
    }  # fmt: skip
    for name in ("report.html", "ledger.jsonl", "summary.json", "adapter"):
        assert f"runs/small/{name}" in done.stdout
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").open()]
    rounds = [row for row in rows if row["row"] == "round"]
    assert [row["round"] for row in rounds] == [0, 1, 2, 3]
    for total in ("uplink_bits", "downlink_bits"):
        assert summary[total] == sum(row[total] for row in rounds)
    assert summary["seconds"] == pytest.approx(sum(row["seconds"] for row in rounds))
    assert summary["joules"] == pytest.approx(sum(row["joules"] for row in rounds))
    resolved = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert {"torch", "transformers", "airtune"} <= set(resolved["versions"])
    assert resolved["seed"] == 0

    airtune("run", description, "--set", "cell=ideal", "--set", "name=ideal", "--quiet")
    table = airtune("compare", "runs/small", "runs/ideal").stdout
    assert "small" in table
    assert "ideal" in table
    airtune("report", "runs/small", "runs/ideal", "-o", "both.html")
    assert "ideal" in (airtune.home / "both.html").read_text()
    airtune("export", "runs/small", "--to", "mine")
    assert (airtune.home / "mine" / "adapter_config.json").is_file()
    assert (
        "not an empty directory"
        in airtune("export", "runs/small", "--to", "mine", check=False).stderr
    )
    said = airtune("export", "runs/small", "--to", "theirs", "--client", "1").stdout
    assert "client 1 keeps nothing of its own: this is the server's model" in said
    assert "the own model of client 1 " in (airtune.home / "theirs" / "README.md").read_text()

    # The same from Python.
    import airtune as package

    run = package.load(folder)
    assert run.summary == summary
    assert run.history["round"].tolist() == [0, 1, 2, 3]
    assert run.history["total_uplink_bits"].iloc[-1] == summary["uplink_bits"]
    assert set(run.adapter) >= {"classifier.weight", "classifier.bias"}


def test_the_report_of_a_run_opens_in_a_browser(airtune, description, browse):
    airtune("run", description, "--quiet")
    dom, errors = browse(airtune.home / "runs" / "small" / "report.html")
    assert errors == []
    figures = dom.count('class="plotly-graph-div')
    # Accuracy against bits, seconds, joules; fate, SNR, grant; clients before and after.
    assert figures == 3 + 3 + 1
    assert dom.count('<svg class="main-svg"') >= figures


def test_python_runs_too_and_writes_the_same_ledger(airtune, small, tmp_path, description):
    import airtune as package

    seen = []
    run = package.run(package.Experiment(**small()), out=tmp_path / "py", on_round=seen.append)
    assert [totals.round for totals in seen] == [0, 1, 2, 3]
    airtune("run", description, "--out", "cli")
    cli = airtune.home / "cli" / "ledger.jsonl"
    assert cli.read_bytes() == (run.path / "ledger.jsonl").read_bytes()
    assert run.summary["accuracy"] == run.history["accuracy"].iloc[-1]


def test_killed_and_resumed_ends_with_the_same_bytes(airtune, description):
    airtune("run", description, "--set", "train.rounds=12", "--out", "whole", "--quiet")
    command = [str(AIRTUNE), "run", str(description), "--set", "train.rounds=12", "--out", "cut"]
    process = subprocess.Popen(
        command, cwd=airtune.home, env=airtune.environment, stdout=subprocess.DEVNULL
    )
    ledger = airtune.home / "cut" / "ledger.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if ledger.exists() and ledger.read_text().count('"row":"round"') >= 3:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (airtune.home / "cut" / "summary.json").exists(), "it ended before it was killed"
    done = airtune("report", "cut", "-o", "x.html", check=False)
    assert done.returncode == 2
    assert "has not finished" in done.stderr
    airtune(*command[1:], "--resume", "--quiet")
    for name in ("ledger.jsonl", "adapter/adapter_model.safetensors"):
        whole, cut = (airtune.home / folder / name for folder in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
    # Resuming a finished run changes nothing.
    before = ledger.read_bytes()
    airtune(*command[1:], "--resume", "--quiet")
    assert ledger.read_bytes() == before


def test_a_corrupt_checkpoint_is_said_and_nothing_is_overwritten(airtune, description):
    airtune("run", description, "--out", "run", "--quiet")
    state = airtune.home / "run" / "checkpoint" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    before = (airtune.home / "run" / "ledger.jsonl").read_bytes()
    done = airtune("run", description, "--out", "run", "--resume", check=False)
    assert done.returncode == 2
    assert "this checkpoint is corrupt" in done.stderr
    assert (airtune.home / "run" / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nowhere.yaml"), "there is no experiment file 'nowhere.yaml'"),
        (("run", "{x}", "--set", "train.round=1"), "did you mean 'rounds'?"),
        (("run", "{x}", "--set", "data.train=no.csv"), "data.train: there is no file 'no.csv'"),
        (("run", "{x}", "--set", "clients.count=900"), "only 240 training examples"),
        (("run", "{x}", "--set", "adapter.rank=64"), "above the width 32"),
        (("run", "{x}", "--set", "model.name=no/such"), "no hub can be reached"),
        (("compare", "nowhere"), "'nowhere' is not a run directory"),
        (("compare", "nowhere", "--target", "7"), "--target: 7 is no accuracy"),
        (("report", "nowhere", "-o", "."), "is a directory"),
        (("export", "nowhere", "--to", "x"), "is not a run directory"),
        (("run", "{x}", "--resume"), "no run below 'runs' holds this experiment"),
        (("run", "{x}", "--set", "method.private=[clasifier.*]"), "names no trained tensor"),
        (("plan", "{x}", "rank=4,8"), "'rank=4,8' is one argument too many"),
        (("plan", "{x}", "--sweep", "rank=4,8", "more"), "--sweep more: write key=value,value"),
        (("plan", "{x}", "--sweep", "rank=0"), "adapter.rank: input should be greater than 0"),
        (("plan", "{x}", "--rank", "--sweep", "rank=4"), "costs need no --rank"),
        (("plan", "{x}", "--rank", "--pilot", "2"), "give their --rounds"),
        (("plan", "{x}", "--sweep", "rank=4", "--plot", "no/x.html"), "--plot: 'no/x.html' cannot"),
        (("plan", "{x}", "--rank"), "use method.name=soft with method.latency_s"),
        (("plan", "{x}", "--rank", "--out", "no/x.json"), "name a file in an existing folder"),
        (("plan", "{x}", "--rank", "--proxy", "no.csv", "--set", "method=soft"),
         "--proxy: there is no file 'no.csv'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path, monkeypatch, capsys, description, arguments, sentence
):
    """In this process: another one takes seconds to start, and the entry point is the same."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    filled = [each.replace("{x}", str(description)) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["airtune", *filled])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert list(Path.cwd().iterdir()) == []


def test_asking_for_help_and_version(airtune):
    assert airtune().stdout == airtune("--help").stdout
    for command in ("run", "plan", "show", "methods", "compare", "report", "export"):
        assert command in airtune("--help").stdout
        assert "Usage" in airtune(command, "--help").stdout
    assert airtune("--version").stdout.startswith("airtune 0.")
    assert "fedavg" in airtune("methods").stdout
    assert airtune("runn", check=False).returncode == 2
    # Named here, or it would depend on the shell that happens to run the tests.
    airtune.environment["_AIRTUNE_COMPLETE"] = "source_bash"
    assert "complete -o default -F" in airtune().stdout


def test_show_prints_what_run_would_use(airtune, description):
    shown = airtune("show", description, "--set", "cell.power_dbm=10").stdout
    values = yaml.safe_load(shown)
    assert values["cell"]["power_dbm"] == 10
    assert values["train"]["optimiser"] == "adamw"
    (airtune.home / "resolved.yaml").write_text(shown)
    assert airtune("show", "resolved.yaml").stdout == shown


def test_show_says_when_clients_cannot_train_side_by_side(airtune, description):
    assert "one client at a time" not in airtune("show", description).stdout
    shown = airtune("show", description, "--set", "adapter.kind=ia3").stdout
    assert "# machine.cohort is 1: adapters of kind ia3 train one client at a time" in shown
    (airtune.home / "resolved.yaml").write_text(shown)
    assert airtune("show", "resolved.yaml").stdout == shown


def test_plan_says_what_a_run_will_cost_and_what_to_change(airtune, description):
    done = airtune("plan", description, "--out", "plan.json")
    assert "airtime of a round" in done.stdout and "What to change first" in done.stdout
    found = json.loads((airtune.home / "plan.json").read_text())
    assert found["costs"]["upload_bits"]["median"] > 0
    assert {"adapter.rank": "2", "adapter.alpha": "8"} in [c["settings"] for c in found["changed"]]
    assert not (airtune.home / "runs").exists()
    airtune("run", description)
    run = Run(airtune.home / "runs" / "small")
    assert run.costs.airtime_s.median == found["costs"]["airtime_s"]["median"]


def test_plan_sweeps_keys_and_draws_them(airtune, description):
    done = airtune("plan", description, "--sweep", "rank=2,4", "cell.bandwidth_hz=1e6,1e7")
    assert "bandwidth_hz" in done.stdout and "sweep.html" in done.stdout
    assert "adapter.rank" in (airtune.home / "sweep.html").read_text()


def test_plan_chooses_a_rank_and_writes_nothing_but_what_it_is_told_to(airtune, description):
    weak = ("method.name=soft", "method.latency_s=0.05", "cell.radius_m=400", "cell.power_dbm=10",
            "cell.bandwidth_hz=500000")  # fmt: skip
    sets = [word for each in weak for word in ("--set", each)]
    done = airtune("plan", description, "--rank", "--ranks", "4,1", "--rounds", "1", *sets,
                   "--out", "curve.json")  # fmt: skip
    found = json.loads((airtune.home / "curve.json").read_text())
    assert [row["rank"] for row in found["ranks"]] == [1, 4]
    rank = found["chosen"]
    last = done.stdout.strip().splitlines()[-1]
    assert last.endswith(f"--set adapter.rank={rank} --set adapter.alpha={4 * rank}")
    assert "Slices" in done.stdout
    assert [path.name for path in airtune.home.iterdir()] == ["curve.json"]
    # What it says works.
    told = last.partition("use it by ")[2].split()
    shown = airtune("show", description, *sets, *told).stdout
    assert yaml.safe_load(shown)["adapter"]["rank"] == rank


def test_a_diverging_client_is_recorded_and_the_run_goes_on(airtune, description):
    airtune("run", description, "--set", "train.learning_rate=1e30", "--set", "train.clip_norm=",
            "--set", "train.optimiser=sgd", "--out", "hot", "--quiet")  # fmt: skip
    rows = [json.loads(line) for line in (airtune.home / "hot" / "ledger.jsonl").open()]
    statuses = [row["status"] for row in rows if row["row"] == "upload"]
    assert "diverged" in statuses
    assert len(statuses) == 15
    reasons = {row["reason"] for row in rows if row.get("status") == "diverged"}
    assert reasons == {"training loss was not finite"}
