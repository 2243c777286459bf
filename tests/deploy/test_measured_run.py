"""Runs over links that devices measure: grants follow them, deadlines are real ones."""

from __future__ import annotations

import time

import pytest

from airtune import api
from airtune.build import build
from airtune.deploy.device import Device
from airtune.deploy.meter import Moved
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger, letters
from airtune.federation.contents import Done, Inquired, Inquiry, Question, Task, Trip
from airtune.federation.devices import Patience
from airtune.federation.measuring import MeasuredCell
from airtune.federation.post import Post
from airtune.methods.registry import find
from airtune.radio.config import CellConfig

DEADLINE_S = 8.0
RATES = {0: 6e3, 1: 4e4, 2: 4e6}  # bit/s; the small adapter has 75 kbit


class Simulated:
    """A meter on a link of a stated rate, which the device's answers have gone over."""

    def __init__(self, rate_bps):
        self.rate_bps, self.bits = rate_bps, 0

    def taken(self):
        bits, self.bits = self.bits, 0
        return Moved(bits // 8, bits / self.rate_bps), Moved()


class Metered(Device):
    """A device with such a meter, whose rate may become another one in a round."""

    def __init__(self, holdings, say, rates=RATES, change=None):
        self.meter = Simulated(rates[holdings.wanted])
        super().__init__(holdings, say, self.meter)
        self.change = change or {}

    def answer(self, data):
        content = letters.read(data).content
        if isinstance(content, Task) and content.round in self.change:
            self.meter.rate_bps = self.change[content.round]
        found = super().answer(data)
        self.meter.bits = 8 * (len(found) + 500)  # as what wraps it on its way
        return found


def soft(three, rounds=6, **cell):
    return three(
        adapter={"rank": 8},
        cell={"measured": True, "deadline_s": DEADLINE_S, **cell},
        method={"name": "soft", "control": "none"},
        train={"rounds": rounds, "evaluate_every": rounds},
    )


@pytest.fixture
def parts(three):
    """Who has which rows, which a cell has no say in."""
    return build(Experiment(**{**soft(three), "cell": "ideal"}))


def rows_of(folder, kind):
    return [row for row in ledger.read(folder / "ledger.jsonl") if row["row"] == kind]


def test_uploads_fit_into_what_the_deadline_leaves_on_each_link(three, parts, devices, serve):
    folder, server, _ = serve(soft(three), devices(parts, Metered), table=parts.table)
    whole = server.method.scheduler.pieces.whole
    uploads = rows_of(folder, "upload")
    assert {row["status"] for row in uploads} == {"delivered"}
    for row in uploads:
        # What a real link would have taken, and everything else that was really taken.
        on_air = row["bits"] / RATES[row["client"]]
        assert on_air + row["seconds"] + row["compute_seconds"] < DEADLINE_S
    kept = {client: [r["bits"] for r in uploads if r["client"] == client] for client in RATES}
    assert max(kept[0]) < 0.8 * whole <= min(kept[2])
    assert min(kept[0]) > 0.2 * DEADLINE_S * RATES[0], "the slow link is made use of"
    links = rows_of(folder, "link")
    assert all(row["rate_bps"] == pytest.approx(RATES[row["client"]], rel=0.02) for row in links)
    times = rows_of(folder, "round")
    assert all(row["joules"] is None for row in times[1:]), "nobody measures what machines draw"
    assert all(row["seconds"] > 0.0 for row in times[1:])


def test_logits_are_as_many_as_the_deadline_leaves_on_each_link(three, devices, serve):
    rates = {0: 1.7e3, 1: 4e4, 2: 4e6}
    steps = dict.fromkeys(("warm_up_steps", "public_steps", "server_steps"), 1)
    values = soft(three) | {"method": {"name": "adald", "uplink_seconds": None, **steps}}
    parts = build(Experiment(**{**values, "cell": "ideal"}))
    paths = devices(parts, lambda holdings, say: Metered(holdings, say, rates))
    folder, *_ = serve(values, paths, table=parts.table)
    uploads = rows_of(folder, "upload")
    assert {row["status"] for row in uploads} == {"delivered"}
    for row in uploads:
        on_air = row["bits"] / rates[row["client"]]
        assert on_air + row["seconds"] + row["compute_seconds"] < DEADLINE_S
    sent = {client: [r["bits"] for r in uploads if r["client"] == client] for client in rates}
    assert max(sent[0]) < 0.8 * min(sent[2])
    assert min(sent[0]) > 0.2 * DEADLINE_S * rates[0], "the slow link is made use of"


def test_a_link_that_changes_is_followed_within_three_rounds(three, parts, devices, serve):
    def make(holdings, say):
        change = {3: 2 * RATES[0]} if holdings.wanted == 0 else {}
        return Metered(holdings, say, change=change)

    folder, *_ = serve(soft(three, rounds=8), devices(parts, make), table=parts.table)
    bits = {r["round"]: r["bits"] for r in rows_of(folder, "upload") if r["client"] == 0}
    assert 1.5 * bits[3] < bits[6] < 0.9 * DEADLINE_S * 2 * RATES[0]


def test_estimates_after_a_restart_are_those_before(three, parts, devices, serve, tmp_path):
    folder, server, _ = serve(soft(three), devices(parts, Metered), table=parts.table)
    before = server.cell.links(9)
    again = MeasuredCell(server.cell.config, 3, 0)
    again.recall(ledger.read(folder / "ledger.jsonl"))
    after = again.links(9)
    # What was measured since, when the run was set up again, is the newest that is known.
    later = MeasuredCell(server.cell.config, 3, 0)
    later.went_up(2, Trip(round=0, body_bytes=1 << 17, bytes=1 << 17, seconds=20.0))
    later.recall(ledger.read(folder / "ledger.jsonl"))
    assert later.links(9).rate_bps[2] == pytest.approx(8 * (1 << 17) / 20.0)
    for name in ("rate_bps", "deviation", "extra_bits", "rest_s", "rest_deviation_s"):
        assert getattr(after, name).tolist() == pytest.approx(getattr(before, name).tolist())


def test_a_fall_is_planned_with_in_the_next_round_though_its_report_is_late():
    cell = MeasuredCell(CellConfig(measured=True, deadline_s=25.0), 2, 0)
    for client in (0, 1):
        for round in (1, 2):
            cell.took(client, round, 14.0)
            trip = Trip(round=round, body_bytes=2_500_000, bytes=2_500_000, seconds=4.0)
            cell.went_up(client, trip)
    cell.gave_up(0, 3, 25.0, granted=1e9)  # of which it sends 20 Mbit at most
    cell.took(1, 3, 24.5)
    known = cell.links(4)
    assert known.rate_bps[1] == pytest.approx(5e6), "its report comes with its next answer"
    spent = 15.0 - 2.0 * known.rest_deviation_s[0]
    assert known.rate_bps[0] == pytest.approx(20e6 / spent)
    cell.still_out(0, 45.0)
    assert cell.links(5).rate_bps[0] == pytest.approx(20e6 / (spent + 20.0))
    cell.went_up(0, Trip(round=3, body_bytes=2_500_000, bytes=2_500_000, seconds=40.0))
    assert cell.links(6).rate_bps[0] == pytest.approx(0.5e6)
    cell.still_out(1, 99.0)
    assert cell.links(6).rate_bps[1] == pytest.approx(5e6), "that answer was not given up"


def test_who_owes_an_answer_is_known_by_the_question():
    class Nobody:
        def post(self, node, data, seconds):
            return 1

        def collect(self, tickets, seconds):
            time.sleep(seconds)
            return {}

    post = Post(Nobody(), bytes(16), print)
    late = post.ask({"a": (Inquiry(), b"")}, Inquired, 0.1)["a"]
    busy = post.ask({"a": (Question(round=1), b"")}, Inquired, 0.1)["a"]
    assert late.late and not late.busy and busy.late and busy.busy
    assert late.owed == busy.owed == Inquiry() and busy.seconds >= late.seconds >= 0.1


def test_a_round_ends_by_its_deadline_and_the_late_report_is_used(three, parts, devices, serve):
    class Dawdling(Metered):
        def answer(self, data):
            content = letters.read(data).content
            found = super().answer(data)
            if isinstance(content, Task) and content.round == 2:
                time.sleep(2.05)
            return found

    def make(holdings, say):
        fast = dict.fromkeys(RATES, 4e6)
        return (Dawdling if holdings.wanted == 1 else Metered)(holdings, say, fast)

    folder, *_ = serve(
        soft(three, rounds=8, deadline_s=2.0), devices(parts, make), table=parts.table, limit=2.0
    )
    fates = {(r["round"], r["client"]): r["status"] for r in rows_of(folder, "upload")}
    assert fates[2, 1] == "late"
    assert [fates[round, 0] for round in range(1, 9)] == ["delivered"] * 8
    seconds = {row["round"]: row["seconds"] for row in rows_of(folder, "round")}
    assert seconds[2] == pytest.approx(2.0, abs=0.3)
    reported = [r["round"] for r in rows_of(folder, "link") if r["client"] == 1]
    assert 1 in reported, "what the answer that came too late said of the round before"


def test_devices_that_do_not_measure_are_refused(three, parts, devices, serve):
    with pytest.raises(UserError, match=r"no device measures its link; those that airtune join"):
        serve(soft(three), devices(parts), table=parts.table)


def test_what_measured_links_cannot_do_is_said_before_devices_are_asked(three):
    with pytest.raises(UserError, match=r"cell\.measured: in one process there are no links"):
        build(Experiment(**soft(three)))
    values = soft(three)
    values["method"] = {"name": "soft"}
    with pytest.raises(UserError, match=r"method\.control: tsfa divides a band"):
        experiment = Experiment(**values)
        ideal = build(Experiment(**{**values, "cell": "ideal"})).method.setup
        setup = type(ideal)(**{**vars(ideal), "cell": experiment.cell})
        find("soft")(experiment.method, setup)
    values = soft(three)
    values["clients"] = {"count": 3, "selection": "proportional-fair"}
    with pytest.raises(UserError, match=r"proportional-fair shares out a band"):
        Experiment(**values)


def test_a_limit_below_the_deadline_is_refused(three, tmp_path):
    experiment, patience = Experiment(**soft(three)), Patience(answer=5.0)
    with pytest.raises(UserError, match=r"--limit: 5 s are less than cell\.deadline_s, 8"):
        api.serve(experiment, None, tmp_path / "run", patience=patience)


def test_what_a_reply_says_of_its_time_is_no_longer_than_it_took():
    reply = Done(sent=False, tokens=1, compute_seconds=9.0).reply(0, b"", 2.0)
    assert reply.took.compute_seconds == 2.0
