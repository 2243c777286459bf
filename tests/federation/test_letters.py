"""Letters: what was written is read, anything else is refused in a sentence."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.federation import frames, letters
from airtune.federation.contents import (
    KINDS,
    Done,
    Greeting,
    Inquired,
    Inquiry,
    Presence,
    Problem,
    Question,
    Ready,
    Scores,
    Start,
    SumAnswer,
    SumStep,
    Task,
    Trip,
)
from airtune.federation.interface import Order, Reply, Took
from airtune.federation.letters import Letter, LetterError
from airtune.radio.grant import Grant

RUN = bytes(range(16))
EVERY = [
    Greeting(),
    Presence(device="ward-7", rows=12, test_rows=0, wanted=2, working=True, machine={"torch": "2"}),
    Start(
        experiment={"seed": 3, "train": {"learning_rate": 1e-3, "clip_norm": None}},
        client=2, examples=[5, 7], task="causal", classes=[], width=400,
    ),
    Ready(batch_tokens=0.1 + 0.2, test_examples=4, sketch="ab" * 16),
    Task(round=3, settled=2, bits=math.inf, power_w=0.2, bandwidth_hz=1e6, rate_bps=5e6),
    Done(sent=True, tokens=9, loss=1 / 3, notes={"kept": 3, "rank": 0.1, "why": "é"}),
    Question(round=4),
    Scores(scores={"accuracy": 0.5, "loss": 1e-300}),
    Problem(sentence="no."),
    Inquiry(),
    Inquired(last_up=Trip(round=2, body_bytes=70, bytes=100, seconds=1 / 3)),
    SumStep(round=4, step="shares"),
    SumAnswer(),
]  # fmt: skip


def by_hand(kind, fields, body, run=RUN, sequence=7, version=1, magic=b"AIRL"):
    """A letter put together from its description."""
    data = (
        magic + bytes([version, kind]) + run + struct.pack("<QIQ", sequence, len(fields), len(body))
    )
    data += fields + body
    return data + struct.pack("<I", zlib.crc32(data))


def test_a_letter_written_by_hand():
    letter = Letter(RUN, 7, Question(round=4), b"\x00\xff")
    assert letters.write(letter) == by_hand(7, b'{"round":4}', b"\x00\xff")
    assert letters.read(by_hand(7, b'{ "round": 4}', b"\x00\xff")) == letter


def test_every_kind_comes_back_and_none_is_forgotten():
    assert {type(each) for each in EVERY} == set(KINDS.values())
    for sequence, content in enumerate(EVERY):
        letter = Letter(RUN, sequence, content, b"body" * sequence)
        back = letters.read(letters.write(letter))
        assert back == letter
        assert type(back.content) is type(content)
    (_, done) = (None, letters.read(letters.write(Letter(RUN, 0, EVERY[5]))).content)
    assert [type(value) for value in done.notes.values()] == [int, float, str]


def test_an_order_and_a_reply_are_what_they_were():
    order = Order(5, 3, b"down", Grant(5, math.inf, 0.1 + 0.2, 1e6, 1 / 3))
    assert Task.of(order, 2).order(5, b"down") == order
    assert Task.of(order, 2).boxes_bytes is None
    assert Task.of(order, 2, b"boxes").boxes_bytes == 5
    assert Task.of(order, 2, b"").boxes_bytes == 0  # masked, and nobody else sent shares
    for reply in (
        Reply(5, b"up", 0.1, 100, predicted_tokens=7, notes={"kept": 0.25}, gradient_norm=2.0),
        Reply(5, b"", 0.1, 100),
        Reply(5, None, None, 3, "training loss was not finite", True, 2),
    ):
        letter = letters.read(letters.write(Letter(RUN, 1, Done.of(reply), reply.message or b"")))
        back = letter.content.reply(5, letter.body, 2.0)
        assert back.took == Took(2.0, 0.0)
        assert replace(back, took=None) == reply


def test_the_header_around_a_payload_is_small():
    reply = Reply(5, bytes(10**6), 0.123456789, 100000, gradient_norm=1.23456789)
    assert len(letters.write(Letter(RUN, 1, Done.of(reply), reply.message))) < 10**6 + 200
    task = Task.of(Order(5, 3, b"", Grant(5, 1e6 / 3, 0.2, 1e6 / 3, 1e6 / 7)), 2)
    assert len(letters.write(Letter(RUN, 1, task, bytes(10**6)))) < 10**6 + 250


WHOLE = letters.write(Letter(RUN, 7, EVERY[4], b"payload" * 10))


@pytest.mark.parametrize("size", range(0, len(WHOLE), 7))
def test_a_truncated_letter_is_refused(size):
    with pytest.raises(LetterError):
        letters.read(WHOLE[:size])


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
def test_an_altered_letter_is_refused(place, flip):
    data = bytearray(WHOLE)
    data[place] ^= flip
    with pytest.raises(LetterError):
        letters.read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(
    kind=st.integers(0, 255),
    fields=st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b'{"round":true}', b"[" * 20]),
    body=st.binary(max_size=20),
)
def test_whatever_comes_is_read_or_refused(kind, fields, body):
    try:
        letter = letters.read(by_hand(kind, fields, body))
    except LetterError:
        return
    assert KINDS[kind] is type(letter.content)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (WHOLE + b"x", "declares"),
        (b"GET " + WHOLE[4:], "do not start as a letter"),
        (by_hand(7, b'{"round":4}', b"", version=2), "version 2 cannot be read; this side reads 1"),
        (by_hand(99, b"{}", b""), "kind 99 are not known"),
        (by_hand(7, b"{round}", b""), "not JSON"),
        (by_hand(7, b'{"round":"4"}', b""), "Question has a wrong round"),
        (by_hand(7, b'{"round":-4}', b""), "Question has a wrong round"),
        (by_hand(7, b'{"round":4,"pickle":1}', b""), "Question has a wrong pickle"),
        (by_hand(7, b"{}", b""), "Question has a wrong round"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_letter_is_said(data, sentence):
    with pytest.raises(LetterError, match=sentence):
        letters.read(data)


def test_a_letter_above_the_limit_is_refused():
    with pytest.raises(LetterError, match="too many for a letter; at most 100"):
        letters.read(WHOLE, most_bytes=100)
    assert letters.read(WHOLE, most_bytes=len(WHOLE)).sequence == 7


def test_only_the_answer_to_this_letter_of_this_run_is_taken():
    asked = Letter(RUN, 7, Question(round=4))

    def said(content, run=RUN, sequence=7):
        return letters.write(Letter(run, sequence, content, b"b"))

    found, body = letters.answer(said(EVERY[7]), asked, Scores)
    assert (found, body) == (EVERY[7], b"b")
    for data, sentence in (
        (said(EVERY[7], run=bytes(16)), "another run"),
        (said(EVERY[7], sequence=6), "to letter 6 and letter 7 was sent"),
        (said(EVERY[5]), "a Done came where a Scores was due"),
        (said(Problem(sentence="the disk is full.")), "the disk is full."),
    ):
        with pytest.raises(LetterError, match=sentence):
            letters.answer(data, asked, Scores)


def test_texts_come_back_and_nothing_else_is_taken_for_texts():
    texts = {"_prompt": ["", "é\n"], "_text": ["a", None]}
    assert letters.read_texts(letters.plain_texts(texts)) == texts
    for wrong in ([1], {"_text": [1]}, {"_text": "ab"}, {"_text": ["a"], "_prompt": []}):
        with pytest.raises(LetterError):
            letters.read_texts(json.dumps(wrong).encode())
    with pytest.raises(LetterError):
        letters.read_texts(b"\xff")


@pytest.fixture
def pair():
    one, two = socket.socketpair()
    with one, two:
        yield one, two


def test_frames_come_back_whatever_their_size(pair):
    one, two = pair
    sent = [b"", b"x", bytes(3_000_000)]
    sender = threading.Thread(target=lambda: [frames.send(one, each) for each in sent])
    sender.start()
    assert [frames.receive(two, 1 << 22) for _ in sent] == sent
    sender.join()


def test_a_cut_frame_and_a_large_one_are_told_apart(pair):
    one, two = pair
    one.sendall(struct.pack("<Q", 10) + b"12345")
    one.close()
    with pytest.raises(frames.ClosedError, match="after 5 of 10 bytes"):
        frames.receive(two, 100)


def test_a_frame_above_the_limit_is_refused_before_memory_is_taken(pair):
    one, two = pair
    one.sendall(struct.pack("<Q", 1 << 62))
    with pytest.raises(ValueError, match="too large; at most 100"):
        frames.receive(two, 100)
