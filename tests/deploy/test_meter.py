"""The relay that measures a link: bytes as they are, seconds as they pass."""

from __future__ import annotations

import socket
import sys
import threading
import time

import pytest

from airtune.deploy.meter import BULK_BYTES, Meter, Moved, _Line, _Spans
from airtune.deploy.trips import Trips
from airtune.federation.contents import Done, Greeting, Inquired, Inquiry, Presence, Ready, Task
from airtune.federation.letters import Letter


def test_overlapping_stretches_count_once():
    spans = _Spans()
    for begin, end, count in ((0.0, 2.0, 10), (5.0, 6.0, 7), (1.0, 3.0, 20), (1.5, 1.7, 1)):
        spans.add(begin, end, count)
    assert spans.taken() == Moved(38, 4.0)
    assert spans.taken() == Moved(0, 0.0)


def test_a_request_ends_with_the_response_and_polls_are_no_measure():
    up, down = _Spans(), _Spans()
    line = _Line(None, None)
    line.asks(900, 0.0, down)  # a poll
    line.answers(100, 0.1, up)
    line.asks(50_000, 1.0, down)
    line.asks(50_000, 1.5, down)
    line.answers(100, 3.0, up)
    line.asks(900, 4.0, down)
    line.answers(1_000, 5.0, up)  # its first bytes: nobody knows when they set out
    line.answers(60_000, 5.5, up)
    line.answers(60_000, 6.0, up)
    line.settle(down)
    assert up.taken() == Moved(100_000, 2.0)
    assert down.taken() == Moved(120_000, 1.0)


def test_a_request_ends_with_its_last_confirmation_where_the_system_tells_of_it():
    for busy, seconds in (((7.0, 8.25), 1.25), ((7.0, 99.0), 2.0), ((7.0, 7.0), 0.004)):
        up, down = _Spans(), _Spans()
        line = _Line(None, None)
        line.asks(50_000, 1.0, down, busy[0])
        line.asks(50_000, 1.5, down, busy[0] + 0.4)
        line.answers(100, 3.0, up, busy[1])
        moved = up.taken()
        assert moved.bytes == 100_000 and moved.seconds == pytest.approx(seconds)


@pytest.fixture
def server():
    """A server that reads slowly, and answers each line "up down" with so many bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    heard = []

    def answer(connection):
        stream = connection.makefile("rb", buffering=0)
        while line := stream.readline():
            up, down = map(int, line.split())
            got = b""
            while len(got) < up:
                got += stream.read(min(8192, up - len(got)))
                time.sleep(0.002)
            heard.append(got)
            connection.sendall(b"d" * down)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], heard
    listener.close()


def test_bytes_pass_as_they_are_and_their_seconds_are_those_of_the_link(server):
    port, heard = server
    meter = Meter("127.0.0.1", port)
    near = socket.create_connection(("127.0.0.1", meter.port))
    payload = bytes(range(256)) * 8_000
    began = time.monotonic()
    near.sendall(f"{len(payload)} 10\n".encode() + payload)
    assert near.recv(10) == b"d" * 10
    took = time.monotonic() - began
    up, down = meter.taken()
    assert heard == [payload]
    assert len(payload) < up.bytes < len(payload) + 20
    assert 0.25 < 0.5 * took < up.seconds <= took  # the reader alone takes half a second
    assert down == Moved()
    near.close()
    meter.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was confirmed when")
def test_what_a_server_does_before_it_responds_is_not_the_links():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = Meter("127.0.0.1", listener.getsockname()[1])
        near = socket.create_connection(("127.0.0.1", meter.port))
        far, _ = listener.accept()
        near.sendall(b"u" * 60_000)
        got = b""
        while len(got) < 60_000:
            got += far.recv(60_000)
        time.sleep(1.0)
        far.sendall(b"d")
        assert near.recv(1) == b"d"
        up, _ = meter.taken()
    assert up.bytes == 60_000 and 0.0 < up.seconds < 0.5
    near.close()
    meter.close()


def test_a_server_that_is_not_there_is_said(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    meter = Meter("127.0.0.1", free)
    near = socket.create_connection(("127.0.0.1", meter.port))
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    assert meter.problem == "it cannot be reached (Connection refused)"
    meter.close()


class Given:
    """A meter that was told what it measured."""

    def __init__(self):
        self.up, self.down = Moved(), Moved()

    def taken(self):
        found, self.up, self.down = (self.up, self.down), Moved(), Moved()
        return found


def ask(trips, meter, question, answer, body=b"", up=Moved(), down=Moved()):  # noqa: B008
    meter.up, meter.down = up, down
    trips.begin()
    return trips.told(Letter(bytes(16), 1, question, b"order"), answer, body)


def task(round):
    return Task(round=round, settled=0, bits=1.0, power_w=0.0, bandwidth_hz=0.0, rate_bps=1.0)


def test_an_upload_is_told_of_once_with_the_next_answer_that_can():
    meter = Given()
    trips = Trips(meter)
    ready = Ready(batch_tokens=1.0, test_examples=0, sketch="")
    assert ask(trips, meter, Greeting(), ready, b"x" * 9_000) == ready
    presence = Presence(device="d", rows=1)
    half = Moved(5_000, 0.5)
    assert ask(trips, meter, Greeting(), presence, up=half) == presence
    told = ask(trips, meter, Inquiry(), Inquired(), up=half).last_up
    assert (told.round, told.body_bytes, told.bytes, told.seconds) == (0, 9_000, 10_000, 1.0)
    assert ask(trips, meter, Inquiry(), Inquired(), up=half).last_up is None


def test_an_order_is_told_of_at_once_and_its_answer_afterwards():
    meter = Given()
    trips = Trips(meter)
    plain = Done(sent=True, tokens=3)
    done = ask(trips, meter, task(4), plain, b"y" * 700, down=Moved(BULK_BYTES, 0.25))
    assert (done.down.round, done.down.body_bytes, done.down.seconds) == (4, 5, 0.25)
    assert done.last_up is None and done.compute_seconds >= 0.0
    again = ask(trips, meter, task(5), plain, up=Moved(800, 0.1))
    assert (again.last_up.round, again.last_up.body_bytes, again.last_up.bytes) == (4, 700, 800)


def test_without_a_meter_only_the_time_of_computing_is_told():
    trips = Trips(None)
    ask(trips, Given(), task(1), Done(sent=False, tokens=0))
    done = ask(trips, Given(), task(2), Done(sent=False, tokens=0))
    assert done.last_up is None and done.down is None
