"""Clients between helpful and safe, and the front that bounds them."""

from dataclasses import replace

from airtune.report.comparison import compare
from airtune.report.facts import run_facts
from airtune.report.html import report_html
from airtune.report.rewards import rewards_panel

AFTER = {
    "0": {"helpful": 0.1, "safe": 0.9, "reward": 0.9, "kl": 3.0, "preference": 0.0},
    "1": {"helpful": 0.7, "safe": 0.4, "reward": 0.55, "preference": 0.5},
}
BEFORE = {name: {"helpful": 0.2, "safe": 0.5} for name in AFTER}


def judged(view, **more):
    facts = {"front": [[0.5, 1.0], [0.9, 0.6]], "preferences": [0.25, 0.0, 0.5]}
    told = {"personal_scores": AFTER, "personal_scores_untrained": BEFORE, "facts": facts}
    return replace(view, summary={**view.summary, **told, **more})


def test_clients_stand_beside_the_front(make_view):
    front, before, after = rewards_panel(judged(make_view())).data
    assert (list(front.x), list(front.y)) == ([0.5, 0.9], [1.0, 0.6])
    assert (list(before.x), list(before.y)) == ([0.2, 0.2], [0.5, 0.5])
    assert (list(after.x), list(after.y)) == ([0.1, 0.7], [0.9, 0.4])
    assert list(after.text) == ["0 (a = 0)", "1 (a = 0.5)"]
    assert [list(row) for row in after.customdata] == [["0.900", "3.000"], ["0.550", "unknown"]]


def test_without_rewards_there_is_no_panel(make_view):
    plain = judged(make_view(), personal_scores={"0": {"accuracy": 0.5}})
    assert rewards_panel(plain) is None
    assert rewards_panel(make_view()) is None
    assert "Helpful and safe" in report_html([judged(make_view())])


def test_means_are_facts_and_columns(make_view):
    view = judged(make_view(), scores={"personal_reward": 0.725, "helpful": 0.3})
    facts = {fact.label: fact.value for fact in run_facts(view, None)}
    assert facts["Reward by own weights"] == "0.725"
    columns = {c.header: c.cells for c in compare([view, make_view()]).columns}
    assert columns["Reward by own weights"][0] == "0.725"
    assert "helpful" not in columns
