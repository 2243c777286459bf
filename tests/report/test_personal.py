"""Clients before and after, and what was shared."""

from dataclasses import replace

from airtune.report.facts import run_facts
from airtune.report.html import report_html
from airtune.report.personal import personal_panel


def with_summary(view, **more):
    return replace(view, summary={**view.summary, **more})


def test_clients_stand_in_the_order_of_what_they_reached(make_view):
    view = with_summary(
        make_view(),
        personal_accuracies={"0": 0.9, "1": 0.5, "2": 0.7},
        personal_accuracies_untrained={"0": 0.2, "1": 0.4, "2": 0.3},
    )
    gaps, before, after = personal_panel(view).data
    assert list(before.x) == list(after.x) == ["1", "2", "0"]
    assert list(before.y) == [0.4, 0.3, 0.2]
    assert list(after.y) == [0.5, 0.7, 0.9]
    assert list(gaps.y)[:3] == [0.4, 0.5, None]
    assert "untrained and at the end" in report_html([view])


def test_without_tested_clients_there_is_no_panel(make_view):
    view = with_summary(make_view(), personal_accuracies={}, personal_accuracies_untrained={})
    assert personal_panel(view) is None
    assert "untrained and at the end" not in report_html([view])


def test_what_was_shared_and_what_stayed_private_is_said_with_sizes(make_view):
    view = with_summary(
        make_view(), trained_parameters=75_328, shared_parameters=50_752, payload_bits=1_624_064
    )
    notes = {fact.label: fact.note for fact in run_facts(view, None)}
    assert notes["Trained parameters"] == "50,752 shared (1.62 Mbit), 24,576 private"
    shared = with_summary(view, shared_parameters=75_328)
    assert "private" not in {f.label: f.note for f in run_facts(shared, None)}["Trained parameters"]


def test_personal_models_on_all_texts_are_a_fact(make_view):
    view = with_summary(make_view(), personal_global_accuracy=0.625)
    facts = {fact.label: fact.value for fact in run_facts(view, None)}
    assert "62.5" in facts["Personal models, all texts"]
