"""What we ask of Flower's API, and what its apps do with it, without Flower's processes."""

from __future__ import annotations

import socket
import threading
import tomllib

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: airtune[flower]")

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from airtune.deploy.flower.apps import write_app
from airtune.deploy.flower.carrier import FlowerCarrier
from airtune.deploy.flower.processes import check_port, environment
from airtune.deploy.flower.shims import _wrapped, client_app, server_app
from airtune.deploy.sockets import listen
from airtune.errors import UserError


class OneProcess:
    """A grid that runs the ClientApp at once, with Flower's rules where they bite.

    Messages and answers are copied through their serialised form; an answer that was had is an
    error to ask for again.
    """

    def __init__(self, sockets):
        self.app, self.answers, self.had = client_app(), {}, set()
        self.contexts = {
            100 + i: Context(1, 100 + i, {"socket": str(path)}, RecordDict(), {})
            for i, path in enumerate(sockets)
        }

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        names = []
        for message in messages:
            name = f"message-{len(self.answers) + len(self.had)}"
            message.metadata.__dict__["_message_id"] = name
            try:
                self.answers[name] = self.app(message, self.contexts[message.metadata.dst_node_id])
            except OSError as error:
                self.answers[name] = Message(Error(2, str(error)), reply_to=message)
            names.append(name)
        return names

    def pull_messages(self, names):
        assert not self.had & set(names), "an answer was asked for twice"
        self.had |= set(names)
        return [self.answers.pop(name) for name in names]


@pytest.fixture
def flower(tmp_path, monkeypatch):
    """A carrier through both apps to one device that turns letters round, and one that is dead."""
    from flwr.supercore.task_identity import TaskIdentity

    # Messages can be made in a process of Flower's only.
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    alive, dead, path = (tmp_path / name for name in ("alive", "dead", "run"))
    threading.Thread(target=listen, args=(alive, lambda data: data[::-1]), daemon=True).start()
    while not alive.exists():
        pass
    carrier = FlowerCarrier(path, lambda: "its log", lambda: None)
    grid = OneProcess([alive, dead])
    context = Context(1, 1, {}, RecordDict(), {"socket": str(path)})
    app = threading.Thread(target=server_app(), args=(grid, context), daemon=True)
    app.start()
    carrier.wait(10)
    carrier.app = app
    yield carrier
    carrier.close()


def test_the_grid_that_we_ask_has_what_we_ask_for():
    assert {"get_node_ids", "push_messages", "pull_messages"} <= set(dir(Grid))


def test_letters_go_through_flower_as_they_are_and_a_dead_device_is_told(flower):
    alive, dead = flower.nodes()
    data = bytes(range(256)) * 50_000  # above the size at which Flower cuts arrays
    tickets = [flower.post(alive, data, 9.0), flower.post(dead, b"x", 9.0)]
    found = {}
    while len(found) < 2:
        found |= flower.collect([t for t in tickets if t not in found], 5.0)
    assert found == {tickets[0]: data[::-1], tickets[1]: None}


def test_what_holds_no_letter_is_no_answer_and_the_run_goes_on(flower, monkeypatch):
    alive, _ = flower.nodes()
    plain = OneProcess.pull_messages

    def empty(self, names):
        return [Message(RecordDict(), reply_to=answer) for answer in plain(self, names)]

    def of_their_question(self, names):
        found = empty(self, names)
        for answer, name in zip(found, names, strict=True):
            answer.metadata.__dict__["_reply_to_message_id"] = name
        return found

    monkeypatch.setattr(OneProcess, "pull_messages", of_their_question)
    ticket = flower.post(alive, b"ab", 9.0)
    assert flower.collect([ticket], 5.0) == {ticket: None}
    monkeypatch.setattr(OneProcess, "pull_messages", plain)
    ticket = flower.post(alive, b"ab", 9.0)
    assert flower.collect([ticket], 5.0) == {ticket: b"ba"}


def test_what_answers_no_question_of_ours_is_nobodys_answer(flower, monkeypatch):
    alive, _ = flower.nodes()
    plain = OneProcess.pull_messages

    def with_another(self, names):
        (answer,) = plain(self, names)
        forged = Message(_wrapped(b"forged"), reply_to=answer)
        assert forged.metadata.reply_to_message_id not in names
        return [forged, answer]

    monkeypatch.setattr(OneProcess, "pull_messages", with_another)
    ticket = flower.post(alive, b"ab", 9.0)
    assert flower.collect([ticket], 5.0) == {ticket: b"ba"}


def test_nothing_is_asked_for_twice_and_waiting_ends(flower):
    alive, _ = flower.nodes()
    ticket = flower.post(alive, b"ab", 9.0)
    assert flower.collect([ticket], 1.0) == {ticket: b"ba"}
    assert flower.collect([], 0.2) == {}


def test_an_answer_that_was_announced_and_does_not_come_stops_no_other(flower, monkeypatch):
    alive, _ = flower.nodes()
    pull, come = OneProcess.pull_messages, threading.Event()

    def waiting(self, names):
        if "message-0" in names:
            come.wait(30)
        return pull(self, names)

    monkeypatch.setattr(OneProcess, "pull_messages", waiting)
    slow, quick = flower.post(alive, b"ab", 9.0), flower.post(alive, b"cd", 9.0)
    assert flower.collect([slow, quick], 5.0) == {quick: b"dc"}
    come.set()
    assert flower.collect([slow], 5.0) == {slow: b"ba"}


def test_the_app_ends_with_the_run(flower):
    flower.close()
    flower.app.join(10)
    assert not flower.app.is_alive()


def test_a_run_that_flower_ends_fails_here(tmp_path):
    carrier = FlowerCarrier(tmp_path / "run", lambda: "out of memory", lambda: None)
    with pytest.raises(UserError, match=r"did not start the run within 0.1 s: out of memory"):
        carrier.wait(0.1)
    with socket.socket(socket.AF_UNIX) as app:
        app.connect(str(tmp_path / "run"))
        carrier.wait(5)
    with pytest.raises(UserError, match=r"Flower ended the run.*--resume continues: out of memory"):
        carrier.nodes()


def test_the_app_that_flower_gets_is_small_and_downloads_nothing(tmp_path):
    folder = write_app(tmp_path / "app")
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == []
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2000
    seen = environment(tmp_path / "home")
    assert seen["FLWR_TELEMETRY_ENABLED"] == "0" and seen["FLWR_HOME"] == str(tmp_path / "home")


def test_a_port_that_another_program_has_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"--port: .* cannot be used"):
            check_port("127.0.0.1", other.getsockname()[1])
