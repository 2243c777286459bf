"""Devices that die, are late, come back or send rubbish; servers that are started again."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import torch

from airtune.api import export
from airtune.build import build, session
from airtune.deploy import sockets
from airtune.deploy.device import Device, Holdings, to_stderr
from airtune.deploy.halves import build_server
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import checkpoint, ledger, letters
from airtune.federation.contents import Done, Greeting, Presence, Problem, Question, Start, Task
from airtune.federation.devices import Patience
from airtune.federation.interface import Order
from airtune.federation.letters import Letter
from airtune.federation.post import Answer, Silence
from airtune.federation.remote import Remote
from airtune.federation.roster import Roster
from airtune.federation.round_states import RoundStates
from airtune.federation.session import Session
from airtune.radio.grant import Grant
from airtune.results import Run

OWN = {"method": {"name": "fedavg", "private": ["classifier.*"]}}


class Shaky(Device):
    """A device that does something else when it hears a task of a certain round."""

    def __init__(self, holdings, say, round, act):
        super().__init__(holdings, say)
        self.holdings, self.say, self.round, self.act = holdings, say, round, act

    def answer(self, data):
        content = letters.read(data).content
        if isinstance(content, Task) and content.round == self.round:
            self.round = None
            found = self.act(self, data)
            if found is not None:
                return found
        return super().answer(data)


def shaky(client, round, act):
    """Make client's device shaky, the others not."""

    def make(holdings, say):
        if holdings.wanted != client:
            return Device(holdings, say)
        return Shaky(holdings, say, round, act)

    return make


def hang_up(device, data):
    """Close the connection without a word, as a process does that is killed."""
    raise ConnectionError


def start_again(device, data):
    """Answer as a process that was killed and started again before this letter."""
    device.__init__(device.holdings, device.say, None, None)


def uploads(folder):
    rows = ledger.read(folder / "ledger.jsonl")
    return {(r["round"], r["client"]): r for r in rows if r["row"] == "upload"}


@pytest.fixture
def hang(monkeypatch):
    """Let a device's thread close its connection where it would break down."""
    plain = sockets.serve

    def serve(connection, answer, most_bytes=1 << 31):
        with contextlib.suppress(ConnectionError):
            plain(connection, answer, most_bytes)

    monkeypatch.setattr(sockets, "serve", serve)


def test_a_device_that_dies_in_a_round_is_missed_there_and_used_in_the_next(
    three, in_process, devices, serve, hang
):
    values = three()
    _, parts, _ = in_process(values)
    folder, _, _ = serve(values, devices(parts, shaky(1, 2, hang_up)), table=parts.table)
    rows = uploads(folder)
    assert rows[2, 1]["status"] == "missed"
    assert rows[2, 1]["reason"] == "the connection to the device broke"
    assert rows[2, 1]["bits"] == 0
    others = {row["status"] for place, row in rows.items() if place != (2, 1)}
    assert others == {"delivered"} and len(rows) == 9


@pytest.mark.parametrize("round", [1, 3])
def test_a_device_that_was_started_again_goes_on_with_what_it_kept(
    three, in_process, devices, serve, round
):
    values = three(**OWN)
    _, parts, one = in_process(values)
    paths = devices(parts, shaky(1, round, start_again))
    folder, _, other = serve(values, paths, table=parts.table)
    assert {row["status"] for row in uploads(folder).values()} == {"delivered"}
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)


def test_a_late_device_stops_nobody_and_is_asked_again_when_it_has_answered(
    three, in_process, devices, serve
):
    let_go = threading.Event()

    def dawdle(device, data):
        let_go.wait(30)

    def push(device, data):
        let_go.set()
        time.sleep(1.0)  # enough for the other to finish what it was asked three rounds ago

    def make(holdings, say):
        if holdings.wanted == 2:
            return Device(holdings, say)
        return Shaky(holdings, say, *((1, dawdle) if holdings.wanted else (3, push)))

    values = three(train={"evaluate_every": 4, "rounds": 4})
    _, parts, _ = in_process(values)
    folder, _, _ = serve(values, devices(parts, make), table=parts.table, limit=3.0)
    rows = uploads(folder)
    assert [rows[round, 1]["status"] for round in (1, 2, 3, 4)] == ["late"] * 3 + ["delivered"]
    assert rows[1, 1]["reason"] == "the device did not answer within 3 s"
    assert rows[2, 1]["reason"] == "the device is still busy with an earlier round"
    assert {rows[round, c]["status"] for round in (1, 2, 3, 4) for c in (0, 2)} == {"delivered"}


def rubbish(device, data):
    return b"HTTP/1.1 200 OK"


def another_run(device, data):
    return letters.write(Letter(bytes(16), letters.read(data).sequence, Done(sent=False, tokens=0)))


def an_old_answer(device, data):
    old = letters.read(data)
    return letters.write(Letter(old.run, old.sequence - 3, Done(sent=True, tokens=0), b"old"))


def another_shape(device, data):
    asked = letters.read(data)
    payload = letters.read(device.__class__.__mro__[1].answer(device, data)).body
    return letters.write(
        Letter(asked.run, asked.sequence, Done(sent=True, tokens=9, loss=1.0), payload[:-9])
    )


def broken(device, data):
    raise_in = device._do
    device._do = lambda letter: {}["a text that is nobody's business"]
    found = Device.answer(device, data)
    device._do = raise_in
    return found


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        (rubbish, "missed", "too few for a letter"),
        (another_run, "missed", "another run"),
        (an_old_answer, "missed", "was sent"),
        (another_shape, "refused", "checksum does not match"),
        (broken, "missed", "the device failed (KeyError); its log says where"),
    ],
)
def test_what_is_no_answer_is_refused_in_a_sentence_and_the_run_goes_on(
    three, in_process, devices, serve, act, status, reason
):
    values, said = three(train={"evaluate_every": 3}), []
    _, parts, _ = in_process(values)
    paths = devices(parts, shaky(1, 2, act))
    folder, _, _ = serve(values, paths, table=parts.table, say=said.append)
    rows = uploads(folder)
    assert rows[2, 1]["status"] == status
    assert reason in rows[2, 1]["reason"]
    assert rows[3, 1]["status"] == "delivered"
    assert status == "refused" or any(reason in sentence for sentence in said)
    assert "nobody's business" not in str(rows) + str(said)


@pytest.mark.parametrize("at", ["between rounds", "in a round"])
def test_a_server_that_was_killed_goes_on_where_its_checkpoint_is(
    three, in_process, devices, serve, monkeypatch, at
):
    values = three(**OWN)
    whole, parts, one = in_process(values)
    paths = devices(parts)
    if at == "in a round":  # devices have trained round 2, the server knows nothing of it

        def killed(self):
            if self.round == 2:
                monkeypatch.undo()
                raise KeyboardInterrupt
            return save(self)

        save = Session._save
        monkeypatch.setattr(Session, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            serve(values, paths, table=parts.table)
    else:
        serve(values, paths, table=parts.table, stop_after=2)
    folder, _, other = serve(values, paths, table=parts.table)
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    assert uploads(whole) == uploads(folder)


def test_a_letter_that_was_heard_before_is_refused_even_after_a_restart(three, tmp_path):
    rows = three()["data"]["train"]
    said = []
    device = Device(Holdings(rows, None, tmp_path / "own"), said.append)
    task = Task.of(_order(), 0)
    letter = letters.write(Letter(bytes(range(16)), 5, task, b"payload"))
    first = letters.read(device.answer(letter)).content
    assert isinstance(first, Problem) and first.unready  # it is not set up: but it was heard
    again = Device(Holdings(rows, None, tmp_path / "own"), said.append)
    for each in (device, again):
        found = letters.read(each.answer(letter)).content
        assert found.sentence == "this letter was heard before."
    other = letters.write(Letter(bytes(16), 5, Question(round=1)))
    assert letters.read(again.answer(other)).content.unready
    assert said[-1] == "refused letter 5, which was heard before"


def _order():
    return Order(0, 1, b"payload", Grant(0, 1e9, 0.2, 1e6, 1e6))


def test_a_run_that_masks_cannot_be_made_to_stop(tmp_path):
    rows, said = tmp_path / "rows.csv", []
    rows.write_text("text,label\na,b\n")
    device = Device(Holdings(str(rows), personal=tmp_path / "own"), said.append)
    facts = {"client": 0, "examples": [1], "task": "causal", "classes": [], "width": 1}
    for sequence, experiment in enumerate(({"security": {"secure_sum": True}}, {}), 1):
        start = Start(experiment=experiment, **facts)
        device.answer(letters.write(Letter(bytes(16), sequence, start)))
    assert said[-1] == "this run masked its uploads, and does not any more."


def test_who_does_not_answer_a_greeting_is_left_alone_for_a_while():
    class Mute:
        asked = 0

        def nodes(self):
            return ["a"]

        def ask(self, questions, kind, seconds):
            Mute.asked += 1
            return {node: Silence("no answer", late=True) for node in questions}

    roster = Roster(Mute(), 1, lambda sentence: None)
    for _ in range(3):
        roster.refresh(0.1)
    assert Mute.asked == 1


def test_a_device_that_wants_a_number_that_is_taken_holds_up_nobody():
    class Coming:
        def __init__(self, *wanted):
            self.wanted = list(wanted)

        def nodes(self):
            return [str(number) for number in range(len(self.wanted))]

        def ask(self, questions, kind, seconds):
            there = {
                node: Presence(device=f"d{node}", rows=1, wanted=self.wanted[int(node)])
                for node in questions
            }
            return {node: Answer(each, b"", 0.0) for node, each in there.items()}

        def start_above(self, sequence):
            pass

    said, post = [], Coming(1, 1, 7, None)
    roster = Roster(post, 3, said.append)
    with pytest.raises(UserError, match=r"^1 of 3 devices did not come within 0.3 s"):
        roster.gather(0.3, 0.1)
    turned = [sentence for sentence in said if "is to be client" in sentence]
    assert [sentence[:27] for sentence in turned] == [
        "device d1 is to be client 1", "device d2 is to be client 7",
    ]  # fmt: skip
    post.wanted.append(2)  # one of them was started again with another number
    roster.gather(0.3, 0.1)
    assert [each.device for each in roster.members] == ["d3", "d0", "d4"]


def test_two_devices_of_one_name_are_told_so():
    class Twins:
        def nodes(self):
            return ["a", "b"]

        def ask(self, questions, kind, seconds):
            return {node: Answer(Presence(device="d", rows=1), b"", 0.0) for node in questions}

        def start_above(self, sequence):
            pass

    with pytest.raises(UserError, match=r"two devices have one name; give each a --personal"):
        Roster(Twins(), 2, lambda sentence: None).gather(0.0, 0.1)


def test_what_a_device_says_writes_no_lines_of_its_own(capsys):
    to_stderr("device 7: bad\nairtune: all is well\x1b[2K")
    assert capsys.readouterr().err == "airtune: device 7: bad?airtune: all is well?[2K\n"


def test_a_device_is_known_by_its_folder_and_says_what_it_has(three, tmp_path):
    train, test = three()["data"]["train"], three()["data"]["test"]
    greeting = letters.write(Letter(bytes(range(16)), 1, Greeting()))

    def presence(name, *files):
        device = Device(Holdings(*files, tmp_path / name, wanted=3), lambda sentence: None)
        found = letters.read(device.answer(greeting)).content
        assert isinstance(found, Presence)
        return found

    one, again = presence("a", train, None), presence("a", train, test)
    other = presence("b", train, None)
    assert one.device == again.device != other.device
    assert (one.rows, one.test_rows, again.test_rows) == (240, None, 60)
    assert one.wanted == 3 and not one.working


def test_a_device_of_another_run_is_left_alone(three, in_process, devices, serve, tmp_path):
    values, said = three(), []
    _, parts, _ = in_process(values)
    paths = devices(parts)
    serve(values, paths, table=parts.table, stop_after=1)
    for client in range(3):
        (tmp_path / f"personal{client}" / "device").unlink()
    more = tmp_path / "more"
    more.mkdir()
    device = Device(Holdings(values["data"]["train"], None, more), said.append)
    path = tmp_path / "more.sock"
    threading.Thread(target=sockets.listen, args=(path, device.answer), daemon=True).start()
    while not path.exists():
        time.sleep(0.01)
    serve(values, [*paths[:2], path], table=parts.table, stop_after=2, say=said.append, come=2.0)
    assert any("is none of this run's and is left alone" in sentence for sentence in said)
    rows = uploads(tmp_path / "apart")
    assert [rows[2, c]["status"] for c in range(3)] == ["delivered", "delivered", "missed"]
    assert rows[2, 2]["reason"] == "the device is not connected"


def test_a_device_with_other_weights_cannot_take_part(
    three, in_process, devices, serve, monkeypatch
):
    values = three()
    _, parts, _ = in_process(values)
    monkeypatch.setattr("airtune.deploy.halves.sketch", lambda learner: "other")
    paths = devices(parts)
    from airtune.deploy import halves

    known = iter(["this", *["other"] * 9])
    monkeypatch.setattr(halves, "sketch", lambda learner: next(known))
    with pytest.raises(UserError, match="its model has other weights than the server's"):
        serve(values, paths, table=parts.table)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"method": "pwff"}, "looks at clients' prompts"),
        ({"clients": {"global_texts": 5}}, "do not have the server's test texts"),
        ({"model": {"prototypes": 2}}, "made of training rows"),
        ({"data": {"test": None}}, "data.test: the devices hold the training rows"),
        ({"method": "soft", "security": {"secure_sum": True}}, "cannot do with a sum of uploads"),
        ({"method": "adald"}, "data.public: the devices hold the training rows"),
    ],
)
def test_what_cannot_be_done_apart_is_said_before_devices_are_asked(three, sections, sentence):
    values = three(**sections)
    remote = Remote(sockets.SocketCarrier([]), bytes(16), 3, Patience(), lambda sentence: None)
    with pytest.raises(UserError, match=sentence):
        build_server(Experiment(**values), remote)


def test_states_are_kept_until_their_rounds_will_not_come_again(tmp_path):
    states = RoundStates(tmp_path / "s")
    assert 0 not in states and states.get(0) == {}
    for round in (1, 2, 4):
        states.begin(round, 0)
        states.put(0, {"n": torch.tensor([round])})
        assert 0 not in states if round == 1 else 0 in states
    states.look(3)
    assert states.get(0)["n"].item() == 2
    again = RoundStates(tmp_path / "s")
    again.look(9)
    assert again.get(0)["n"].item() == 4
    again.begin(4, 2)  # the server was killed and repeats round 4
    assert again.get(0)["n"].item() == 2
    again.get(0)["n"].zero_()
    assert again.get(0)["n"].item() == 2
    assert [file.name for file in sorted((tmp_path / "s").iterdir())] == ["00000002.safetensors"]
    again.begin(2, 0)
    assert 0 not in again


def test_runs_in_one_process_and_over_devices_do_not_continue_each_other(
    three, in_process, devices, serve
):
    values = three(train={"rounds": 1})
    whole, parts, _ = in_process(values)
    folder, _, _ = serve(values, devices(parts), table=parts.table)
    (folder / "adapter").mkdir()
    (folder / "experiment.yaml").write_text("{}")
    with pytest.raises(UserError, match="devices, which keep their own models"):
        export(Run(folder), folder / "mine", "0")
    with pytest.raises(UserError, match="keep their states on their own devices"):
        session(build(Experiment(**values)), Experiment(**values), folder)
    remote = Remote(sockets.SocketCarrier([]), bytes(16), 3, Patience(), lambda sentence: None)
    saved = checkpoint.load(whole / "checkpoint" / "state.safetensors")
    with pytest.raises(UserError, match="is a run in one process"):
        remote.open(whole / "checkpoint" / "clients", saved["clients"])
