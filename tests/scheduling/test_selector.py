"""The choice of clients on the links of a cell."""

import dataclasses

import numpy as np
import pytest

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate
from airtune.scheduling.plan import Plan
from airtune.scheduling.selection import choose_randomly
from airtune.scheduling.selector import Selector

RULES = ["random", "round-robin", "best-channel", "proportional-fair", "deadline-feasible"]
CONFIG = CellConfig(deadline_s=1.0, packet_error=0.0)


def selector(rule, count=4, cell=CONFIG):
    return Selector(rule, count, 10.0, cell, 5)


def needs(clients):
    """What clients need: 1 Mbit, 1 kbit at least, and a tenth of a second for each index."""
    return 1e6, 1e3, 0.1 * clients


def unasked(clients):
    raise AssertionError("this rule asks nobody what they need")


def links_of(round=1, clients=15, cell=CONFIG):
    return Cell(cell, clients, seed=2).links(round)


def test_random_is_the_choice_there_always_was():
    chosen = selector("random").choose(links_of(3), unasked)
    assert chosen.clients.tolist() == choose_randomly(15, 4, 5, 3).tolist()
    assert chosen.skipped == {}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_chooses_as_many_as_it_should(rule):
    for round in range(1, 6):
        chosen = selector(rule).choose(links_of(round), needs)
        assert np.array_equal(chosen.clients, np.unique(chosen.clients))
        assert len(chosen.clients) + len(chosen.skipped) == 4
    everybody = selector(rule, count=15).choose(links_of(), needs)
    assert sorted([*everybody.clients.tolist(), *everybody.skipped]) == list(range(15))


def test_the_best_channels_have_the_largest_snr():
    links = links_of()
    chosen = selector("best-channel").choose(links, unasked).clients
    others = np.setdiff1d(np.arange(15), chosen)
    assert links.planned_snr_hz[chosen].min() > links.planned_snr_hz[others].max()


def test_only_those_are_asked_who_meet_the_deadline():
    # From client 10 on computing alone takes the second.
    reasons = {}
    for round in range(1, 40):
        chosen = selector("deadline-feasible").choose(links_of(round), needs)
        assert (chosen.clients < 10).all()
        reasons |= chosen.skipped
        plan = allocate(links_of(round), chosen.clients, 1e6, 1e3, 0.1 * chosen.clients, CONFIG)
        assert plan.skipped == {}
    everybody = selector("deadline-feasible", count=15).choose(links_of(), needs)
    assert set(everybody.skipped) >= set(range(10, 15))
    assert everybody.skipped[12] == "cannot send 1000 bits by the deadline"


def test_a_round_that_nobody_can_meet_names_who_would_have_been_asked():
    never = lambda clients: (1e6, 1e3, np.full(len(clients), 2.0))  # noqa: E731
    chosen = selector("deadline-feasible").choose(links_of(), never)
    assert chosen.clients.size == 0 and len(chosen.skipped) == 4
    plan = allocate(links_of(), chosen.clients, 1e6, 1e3, 0.0, CONFIG).with_skipped(chosen.skipped)
    assert plan.grants == {} and plan.skipped == dict(sorted(chosen.skipped.items()))


def test_those_in_outage_are_not_asked_and_never_fair():
    links = links_of()
    weak = dataclasses.replace(links, planned_snr_hz=np.where(np.arange(15) < 12, 1.0, 1e8))
    chosen = selector("deadline-feasible").choose(weak, lambda clients: (1e6, 1e3, 0.0))
    assert chosen.clients.tolist() == [12, 13, 14]
    assert list(chosen.skipped.values()) == ["outage"]
    assert set(selector("proportional-fair").choose(weak, unasked).clients) >= {12, 13, 14}


def test_fair_averages_by_hand():
    fair, links = selector("proportional-fair"), links_of()
    chosen = fair.choose(links, unasked).clients
    plan = allocate(links, chosen[:3], 1e6, 1e3, 0.0, CONFIG)
    after = fair.after(None, links, plan)
    rate = rate_bps(CONFIG.bandwidth_hz / 4, links.planned_snr_hz, CONFIG.rate)
    expected = np.where(np.isin(np.arange(15), chosen[:3]), rate / 10.0, 0.0)
    assert after == pytest.approx(expected)
    again = fair.after(after, links, Plan(2, {}, {}))
    assert again == pytest.approx(0.9 * expected)
    assert not set(fair.choose(links, unasked, after).clients) & set(chosen[:3])


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "proportional-fair"])
def test_other_rules_remember_nothing(rule):
    assert selector(rule).after(None, links_of(), Plan(1, {}, {})) is None
