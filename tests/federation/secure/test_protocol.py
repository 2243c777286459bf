"""Masked sums: exact whoever drops and when, uniform to look at, and no step or share twice."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="the extra secure is not installed")
pytest.importorskip("Crypto", reason="the extra secure is not installed")

from airtune.federation.secure import primitives
from airtune.federation.secure.collector import Collector
from airtune.federation.secure.config import SecurityConfig
from airtune.federation.secure.messages import SecureSumError, Step, context, pack
from airtune.federation.secure.participant import Participant

ROUND = context("run", 1)
KEYS, SHARES, MASKED, UNMASK, NEVER = range(5)  # when a client drops: before it sends this


class Play:
    """All steps between clients and server, as bytes."""

    def __init__(self, leaves, threshold, about=ROUND, size=5):
        rng = np.random.default_rng(len(leaves))
        self.leaves, self.sent = leaves, 0
        self.words = {c: rng.integers(0, 2**32, size, dtype=np.uint32) for c in leaves}
        self.clients = {c: Participant(c, about, threshold) for c in leaves}
        self.server = Collector(about, threshold, list(leaves))
        self.messages = {}

    def there(self, step):
        return [client for client, leaves in self.leaves.items() if leaves > step]

    def exchange_keys(self):
        for client in self.there(KEYS):
            self.messages[KEYS, client] = self.clients[client].keys()
            self.server.take_keys(self.messages[KEYS, client])
        self.roster = self.server.roster()

    def exchange_shares(self):
        for client in self.there(SHARES):
            self.messages[SHARES, client] = self.clients[client].shares(self.roster)
            self.server.take_shares(self.messages[SHARES, client])
        self.boxes = self.server.boxes()
        for client, message in self.boxes.items():
            self.clients[client].keep(message)

    def add(self):
        for client in self.there(MASKED):
            self.server.add(client, self.clients[client].mask(self.words[client]))
        self.arrived = self.server.arrived()

    def unmask(self):
        for client in self.there(UNMASK):
            self.messages[UNMASK, client] = self.clients[client].unmask(self.arrived)
            self.server.take_unmasking(self.messages[UNMASK, client])
        return self.server.total()

    def run(self):
        self.exchange_keys()
        self.exchange_shares()
        self.add()
        return self.unmask()

    def expected(self):
        """The sum of the words of those who sent them, modulo 2^32 by Python's integers."""
        columns = zip(*(self.words[c].tolist() for c in self.there(MASKED)), strict=True)
        return [sum(column) % 2**32 for column in columns]


def test_the_sum_is_exact_whoever_drops_at_each_step_and_none_comes_of_too_few():
    # Clients 2, 5 and 11, each leaving before any step or never: all 125 cases.
    exact = refused = 0
    for leaves in itertools.product(range(5), repeat=3):
        play = Play(dict(zip((2, 5, 11), leaves, strict=True)), 2)
        if len(play.there(UNMASK)) >= 2:
            assert play.run().tolist() == play.expected()
            exact += 1
        else:
            with pytest.raises(SecureSumError, match=r"came, and the masked sum takes 2\."):
                play.run()
            refused += 1
    # By hand: at most one of three may leave, before any of four steps.
    assert (exact, refused) == (1 + 3 * 4, 125 - 13)


@pytest.mark.parametrize("steps", [*itertools.product(range(4), repeat=2)])
def test_two_of_five_may_drop_before_any_two_steps(steps):
    pairs = list(itertools.combinations(range(5), 2))
    lost = dict(zip(pairs[(4 * steps[0] + steps[1]) % 10], steps, strict=True))
    play = Play(dict.fromkeys(range(5), NEVER) | lost, 3)
    assert play.run().tolist() == play.expected()


@pytest.mark.parametrize("count", [7, 12])
def test_larger_rounds_with_clients_lost_at_every_step(count):
    threshold = SecurityConfig().needed(count)
    rng = np.random.default_rng(count)
    for _ in range(3):
        leaves = dict.fromkeys(range(count), NEVER)
        lost = rng.choice(count, count - threshold, replace=False)
        leaves |= {int(c): int(rng.integers(0, 4)) for c in lost}
        play = Play(leaves, threshold)
        assert play.run().tolist() == play.expected()


def test_default_threshold_by_hand():
    assert [SecurityConfig().needed(n) for n in (3, 4, 5, 6, 9, 10, 100)] == [3, 3, 4, 5, 7, 7, 67]
    assert SecurityConfig(threshold=8).needed(10) == 8


def chi_square(words):
    """(sum of squared deviations over expectation of the 256 bytes), 255 degrees of freedom."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum())


def test_a_masked_payload_looks_uniform_also_with_the_self_mask_taken_off():
    play = Play(dict.fromkeys(range(4), NEVER), 3, size=50_000)
    play.words = {client: np.zeros(50_000, dtype=np.uint32) for client in range(4)}
    play.exchange_keys()
    play.exchange_shares()
    masked = {c: play.clients[c].mask(play.words[c]) for c in range(4)}
    # Mean 255, deviation 22.6: 255 + 10 deviations is passed by chance once in 10^17.
    for words in masked.values():
        assert chi_square(words) < 255 + 226
    alone = [masked[0] - masked[1], masked[0] + masked[1], masked[0] + masked[1] + masked[2]]
    for client, words in masked.items():
        play.server.add(client, words)
    play.arrived = play.server.arrived()
    assert not play.unmask().any()
    # What the server now knows of client 0: its self mask. Its pairwise masks still cover it.
    shares = {c: play.server._shares[c][0] for c in range(3)}
    own = play.server._self_mask(0, primitives.joined(shares), 50_000)
    for words in [masked[0] - own, *alone]:
        assert chi_square(words) < 255 + 226


def test_masks_of_another_round_are_others():
    one, other = (Play(dict.fromkeys(range(3), NEVER), 3, context("run", r)) for r in (1, 2))
    for play in (one, other):
        play.exchange_keys()
        play.exchange_shares()
    masked = [play.clients[0].mask(play.words[0]) for play in (one, other)]
    assert not (masked[0] == masked[1]).any()  # chance: 5 / 2^32


def test_bytes_are_those_of_the_table():
    play = Play(dict.fromkeys(range(5), NEVER) | {4: MASKED}, 4)
    play.run()
    header = 4 + 1 + 16 + 4
    assert len(play.messages[KEYS, 0]) == header + 64
    assert len(play.roster) == header + 5 * 68
    assert len(play.messages[SHARES, 0]) == header + 16 + 5 * 32 + 4 * 48
    assert len(play.boxes[0]) == header + 4 * 52
    assert len(play.arrived) == header + 4 * 4
    assert len(play.messages[UNMASK, 0]) == header + 5 * 16


def test_a_wrong_share_is_refused_and_the_others_still_give_the_sum():
    play = Play(dict.fromkeys(range(5), NEVER), 4)
    play.exchange_keys()
    play.exchange_shares()
    play.add()
    answers = {c: play.clients[c].unmask(play.arrived) for c in range(5)}
    wrong = bytearray(answers[2])
    wrong[-1] ^= 1
    with pytest.raises(SecureSumError, match="client 2 sent a wrong share of client 4's"):
        play.server.take_unmasking(bytes(wrong))
    # Client 1's shares in client 2's name are wrong ones, too.
    stolen = pack(Step.UNMASK, ROUND, 2, answers[1][25:])
    with pytest.raises(SecureSumError, match="client 2 sent a wrong share of client 0's"):
        play.server.take_unmasking(stolen)
    for client in (0, 1, 3, 4):
        play.server.take_unmasking(answers[client])
    assert play.server.total().tolist() == play.expected()


def test_messages_of_another_round_of_another_step_or_twice_are_refused():
    old, new = (Play(dict.fromkeys(range(3), NEVER), 3, context("run", r)) for r in (1, 2))
    for play in (old, new):
        play.exchange_keys()
    with pytest.raises(SecureSumError, match="another round"):
        new.server.take_shares(old.clients[0].shares(old.roster))
    with pytest.raises(SecureSumError, match="another round"):
        new.clients[0].shares(old.roster)
    with pytest.raises(SecureSumError, match="over, or not yet due"):
        new.server.take_keys(new.messages[KEYS, 0])
    with pytest.raises(SecureSumError, match="step 2 came where step 4"):
        new.clients[0].keep(new.roster)
    with pytest.raises(SecureSumError, match="do not start as"):
        new.server.take_shares(b"AIRT" + bytes(60))
    sent = new.clients[0].shares(new.roster)
    new.server.take_shares(sent)
    with pytest.raises(SecureSumError, match="twice"):
        new.server.take_shares(sent)
    with pytest.raises(SecureSumError, match="twice, or out of turn"):
        new.clients[0].shares(new.roster)
    with pytest.raises(SecureSumError, match="does not take part"):
        new.server.take_shares(sent[:21] + (9).to_bytes(4, "little") + sent[25:])
    with pytest.raises(SecureSumError, match="not shares for 3 clients"):
        new.server.take_shares(sent[:21] + (1).to_bytes(4, "little") + sent[25:-1])


def test_a_box_that_was_altered_or_is_another_clients_is_refused():
    play = Play(dict.fromkeys(range(3), NEVER), 3)
    play.exchange_keys()
    for client in range(3):
        play.server.take_shares(play.clients[client].shares(play.roster))
    boxes = play.server.boxes()
    altered = bytearray(boxes[0])
    altered[-1] ^= 1
    with pytest.raises(SecureSumError, match="altered"):
        play.clients[0].keep(bytes(altered))
    with pytest.raises(SecureSumError, match="no other client"):
        play.clients[0].keep(boxes[1])
    # Client 1's box for client 2 in place of that for client 0: each is a number and 48 bytes.
    swapped = boxes[0][:29] + boxes[2][25 + 52 + 4 : 25 + 2 * 52] + boxes[0][25 + 52 :]
    with pytest.raises(SecureSumError, match="altered"):
        play.clients[0].keep(swapped)
    play.clients[0].keep(boxes[0])


def test_a_client_gives_one_secret_of_each_other_and_only_once():
    play = Play(dict.fromkeys(range(4), NEVER), 3)
    play.exchange_keys()
    play.exchange_shares()
    play.clients[0].mask(play.words[0])
    with pytest.raises(SecureSumError, match="asked for twice"):
        play.clients[0].mask(play.words[0])

    def request(*clients):
        body = b"".join(client.to_bytes(4, "little") for client in clients)
        return pack(Step.ARRIVED, ROUND, 2**32 - 1, body)

    for few in (request(0, 1), request(1, 2, 3)):
        with pytest.raises(SecureSumError, match="is not unmasked; it takes 3"):
            play.clients[0].unmask(few)
    with pytest.raises(SecureSumError, match="sent no shares"):
        play.clients[0].unmask(request(0, 1, 2, 9))
    with pytest.raises(SecureSumError, match="ascending"):
        play.clients[0].unmask(request(0, 1, 1, 2))
    answer = play.clients[0].unmask(request(0, 1, 2))[25:]
    given = [answer[i : i + 16] for i in range(0, 64, 16)]
    held = play.clients[0]._held
    assert given == [held[0][1], held[1][1], held[2][1], held[3][0]]
    # Then to be told that client 3 was there all the time.
    with pytest.raises(SecureSumError, match="asked for twice"):
        play.clients[0].unmask(request(0, 1, 2, 3))


def test_a_roster_that_a_client_cannot_trust_is_refused():
    play = Play(dict.fromkeys(range(6), NEVER), 3)
    play.exchange_keys()
    # Half of six: two halves that are told different lists would give both secrets.
    with pytest.raises(SecureSumError, match="6 clients does not fit a threshold of 3"):
        play.clients[0].shares(play.roster)
    play = Play(dict.fromkeys(range(4), NEVER), 3)
    play.exchange_keys()
    own, second = play.roster[25 : 25 + 68], play.roster[25 + 68 : 25 + 136]
    for body, match in (
        (own + second, "2 clients does not fit a threshold of 3"),
        (second, "does not have this client's keys"),
        (own + second[:4] + own[4:], "the same key"),
        (second + own, "ascending"),
        (own[:-1], "whole number of entries"),
    ):
        with pytest.raises(SecureSumError, match=match):
            play.clients[0].shares(play.roster[:25] + body)


def test_the_server_refuses_keys_that_would_stop_the_others():
    server = Collector(ROUND, 2, [0, 1, 2])
    first = Participant(0, ROUND, 2).keys()
    server.take_keys(first)
    with pytest.raises(SecureSumError, match="the same key"):
        server.take_keys(pack(Step.KEYS, ROUND, 1, first[25:]))
    with pytest.raises(SecureSumError, match="small order"):
        server.take_keys(pack(Step.KEYS, ROUND, 1, bytes(32) + first[25:56] + b"!"))
    with pytest.raises(SecureSumError, match="not two keys"):
        server.take_keys(pack(Step.KEYS, ROUND, 1, bytes(63)))


def test_shares_that_do_not_fit_together_are_found_out():
    # A client that commits to shares of another secret than that of its key, and drops.
    play = Play(dict.fromkeys(range(4), NEVER) | {3: MASKED}, 3)
    play.clients[3]._mask_seed = bytes(16)
    with pytest.raises(SecureSumError, match="client 3's key do not fit together"):
        play.run()
    # One that commits to another self mask than it shares.
    play = Play(dict.fromkeys(range(4), NEVER), 3)
    play.exchange_keys()
    messages = {c: play.clients[c].shares(play.roster) for c in range(4)}
    messages[3] = messages[3][:25] + bytes(16) + messages[3][41:]
    for client in range(4):
        play.server.take_shares(messages[client])
    for client, boxes in play.server.boxes().items():
        play.clients[client].keep(boxes)
    play.add()
    with pytest.raises(SecureSumError, match="client 3's mask do not fit together"):
        play.unmask()


def test_any_three_of_five_shares_give_the_secret_and_two_give_another():
    secret = bytes(range(16))
    shares = primitives.split(secret, 3, 5)
    for places in itertools.combinations(range(5), 3):
        assert primitives.joined({p: shares[p] for p in places}) == secret
    for places in itertools.combinations(range(5), 2):
        assert primitives.joined({p: shares[p] for p in places}) != secret


def test_the_stream_is_chacha20s_of_rfc_8439():
    # RFC 8439, appendix A.1, test vector 1: key, counter and nonce zero.
    block = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    words = primitives.stream(bytes(32), 16)
    assert words.tolist() == np.frombuffer(block, dtype="<u4").tolist()
    assert words.dtype == np.uint32


def test_keys_are_derived_as_rfc_5869_says():
    def keyed(key, data):
        return hmac.new(key, data, hashlib.sha256).digest()

    extracted = keyed(bytes(32), b"secret")
    expected = keyed(extracted, b"airtune masked sum 1|here\x01")
    assert primitives.derived(b"secret", b"here") == expected


def test_two_clients_agree_on_what_no_third_has():
    keys = [primitives.private_key(bytes([n]) * 16) for n in range(3)]
    public = [primitives.public_bytes(key) for key in keys]
    one = primitives.agreed(keys[0], public[1], b"x")
    assert one == primitives.agreed(keys[1], public[0], b"x")
    others = {
        primitives.agreed(keys[0], public[1], b"y"),
        primitives.agreed(keys[2], public[1], b"x"),
        primitives.agreed(keys[0], public[2], b"x"),
    }
    assert len({one, *others}) == 4
