"""What a plan prints and draws."""

import pytest
from rich.console import Console

from airtune.federation.costs import Costs, Priced, Spread
from airtune.report.cost_table import (
    changes_table,
    cost_sentences,
    cost_table,
    sweep_sentences,
    sweep_table,
)
from airtune.report.sweep_page import write_sweep


def costs(scale=1.0, **other):
    fields = dict.fromkeys(Costs.__dataclass_fields__, Spread(1.0, 1.0, 1.0))
    fields |= {"rounds": 5, "arrived": 0.75, "always": 3, "sometimes": 1, "never": 1}
    fields |= {"failures": {"skipped": 4, "late": 1}, "reasons": {"outage": 4}}
    fields |= {"upload_bits": Spread(2e6, 1.5e6 * scale, 3e6), "round_s": Spread(72.0, 60.0, 90.0)}
    fields |= {"airtime_s": Spread(10.0 * scale, 8.0 * scale, 20.0 * scale)}
    return Costs(**fields | other)


def text(table, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()


def test_a_plan_says_medians_hours_and_who_does_not_arrive():
    said = text(cost_table("mine", costs(), 100, 4.0))
    assert "1.5 Mbit" in said and "3 Mbit" in said
    assert "8 s" in said and "20 s" in said
    assert "2.0 h" in said and "2 hours" in said  # 100 rounds of 72 s in the mean
    assert "by the deadline of 4 s" in said and "75.0 %" in said
    assert "skipped 20.0 %, late 5.0 %" in said  # of 20 asked for
    assert "first 5 of 100 rounds" in said


def test_a_plan_without_a_deadline_says_which_one_would_do():
    free = costs(finish_s=Spread(1.0, 1.0, 6.5))
    clients, reason, deadline = cost_sentences(free, None, False)
    assert "Of 5 clients asked, 3 get through in every round, 1 in some, 1 in none" in clients
    assert "(4 times)" in reason and "outage" in reason
    assert "6.5 s" in deadline
    assert len(cost_sentences(free, 3.0, False)) == 2
    assert "--pilot 2" in cost_sentences(free, 3.0, True)[-1]


def test_changes_stand_by_what_they_save():
    half = costs(round_s=Spread(36.0, 30.0, 45.0))
    changed = [
        Priced({"a.b": "1"}, costs(), said="nothing"),
        Priced({"c.d": "2"}, half, said="half"),
        Priced({"e.f": "3"}, None, problem="cannot be", said="odd"),
    ]
    said = text(changes_table(costs(arrived=0.96), changed), 100)
    assert said.index("half") < said.index("nothing")
    # Where a quarter of all is lost, what loses less comes first, though it takes longer.
    changed.append(Priced({"g.h": "4"}, costs(arrived=0.9), said="surer"))
    lossy = text(changes_table(costs(), changed), 100)
    assert lossy.index("surer") < lossy.index("half")
    assert "-50 %" in said and "same" in said and "odd" not in said


def test_a_sweep_fits_a_terminal_and_names_what_is_impossible():
    settings = [{"adapter.rank": "4", "cell.bandwidth_hz": "1e6"}]
    settings += [settings[0] | {"adapter.rank": "x"}]
    points = [Priced(settings[0], costs(), 100), Priced(settings[1], None, 100, "no number.")]
    said = text(sweep_table(points))
    assert "bandwidth_hz" in said and "2.0 h" in said and "impossible" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert sweep_sentences(points) == ["adapter.rank=x cell.bandwidth_hz=1e6: no number."]


@pytest.mark.parametrize("values", [("4", "8", "16"), ("equal", "min-max-delay", "4")])
def test_a_sweep_is_drawn_with_a_line_for_each_other_setting(values, tmp_path):
    points = [
        Priced({"adapter.rank": value, "seed": seed}, costs(1.0 + index), 100)
        for seed in ("1", "2")
        for index, value in enumerate(values)
    ]
    write_sweep("mine", points, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert page.count('class="plotly-graph-div"') == 4
    assert "seed 1" in page and "seed 2" in page and "adapter.rank" in page
