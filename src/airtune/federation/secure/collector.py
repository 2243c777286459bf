"""The server's side of a masked sum."""

from __future__ import annotations

import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from airtune.federation.secure.agreement import (
    KEY_BYTES,
    Roster,
    about_masks,
    about_pair,
    about_self,
)
from airtune.federation.secure.messages import (
    SERVER,
    SecureSumError,
    Step,
    numbers,
    pack,
    parts,
    unpack,
)
from airtune.federation.secure.primitives import (
    BOX_BYTES,
    SECRET_BYTES,
    agreed,
    commitment,
    derived,
    joined,
    private_key,
    public_bytes,
    stream,
)
from airtune.wire.fixed_point import Words


@dataclass(frozen=True)
class _Sent:
    """What a client sent in SHARES: commitments by owner's place, and boxes by whom they are for.

    ``shares`` are commitments to (share of the mask key, share of the self mask).
    """

    seed: bytes
    shares: list[tuple[bytes, bytes]]
    boxes: Mapping[int, bytes]


class Collector:
    """Routes keys and boxes, adds masked words up, and takes the masks off the sum.

    ``sum_u q_u = sum_u (y_u - PRG(b_u)) - sum_{d dropped} sum_u +-PRG(s_ud)`` over the clients u
    whose masked payload came, d those that sent shares and nothing more. It learns the self masks
    of the former and the mask keys of the latter.

    Protects against a server that follows the protocol and looks at all that it gets, together with
    fewer clients than the threshold: it learns the sum, who is in it, and nothing more of the
    others. Not against what a sum tells, of few clients or of rounds that differ by one client; a
    server that makes clients up (keys are not signed) or lies about who dropped with the help of
    clients; or clients that send nonsense, which no one can see in a sum. A reply's loss, norm of
    gradients and notes, and how many numbers were clipped, are not masked.
    """

    def __init__(self, context: bytes, threshold: int, clients: list[int]) -> None:
        """``clients`` were asked; ``threshold`` of them must stay in every step."""
        self._context, self._threshold = context, threshold
        self._asked, self._now = set(clients), Step.KEYS
        self._keys: dict[int, tuple[bytes, bytes]] = {}
        self._roster = Roster({})
        self._sent: dict[int, _Sent] = {}
        self._arrived: list[int] = []
        self._total: Words | None = None
        self._shares: dict[int, list[bytes]] = {}

    # One step after the other: what clients send, then what it makes of them.

    def take_keys(self, message: bytes) -> None:
        """Take KEYS."""
        client, body = unpack(message, Step.KEYS, self._context)
        self._expect(Step.KEYS, client, self._asked, self._keys)
        if len(body) != 2 * KEY_BYTES:
            raise SecureSumError(f"{len(body)} bytes are not two keys.")
        pair = body[:KEY_BYTES], body[KEY_BYTES:]
        # What clients would refuse is refused here, lest one client's key stop all others.
        Roster.read(Roster({**self._keys, client: pair}).sorted().write())
        for key in pair:
            agreed(private_key(secrets.token_bytes(SECRET_BYTES)), key, b"trial")
        self._keys[client] = pair

    def roster(self) -> bytes:
        """Return ROSTER for all whose keys came; raise SecureSumError below the threshold."""
        self._enough(len(self._keys), "keys")
        self._roster, self._now = Roster(self._keys).sorted(), Step.SHARES
        return pack(Step.ROSTER, self._context, SERVER, self._roster.write())

    def take_shares(self, message: bytes) -> None:
        """Take SHARES."""
        client, body = unpack(message, Step.SHARES, self._context)
        self._expect(Step.SHARES, client, self._roster.keys, self._sent)
        clients = self._roster.clients
        start = SECRET_BYTES * (1 + 2 * len(clients))
        if len(body) != start + BOX_BYTES * (len(clients) - 1):
            raise SecureSumError(f"{len(body)} bytes are not shares for {len(clients)} clients.")
        seed, *each = parts(body[:start], SECRET_BYTES)
        others = [other for other in clients if other != client]
        boxes = dict(zip(others, parts(body[start:], BOX_BYTES), strict=True))
        self._sent[client] = _Sent(seed, list(zip(each[::2], each[1::2], strict=True)), boxes)

    def boxes(self) -> dict[int, bytes]:
        """Return BOXES for all that sent shares; raise SecureSumError below the threshold."""
        self._enough(len(self._sent), "shares")
        self._sent, self._now = dict(sorted(self._sent.items())), Step.ARRIVED
        found = {}
        for client in self._sent:
            others = (other for other in self._sent if other != client)
            entries = (numbers([other]) + self._sent[other].boxes[client] for other in others)
            found[client] = pack(Step.BOXES, self._context, SERVER, b"".join(entries))
        return found

    def add(self, client: int, words: Words) -> None:
        """Add a client's masked words [numbers]."""
        self._expect(Step.ARRIVED, client, self._sent, self._arrived)
        if self._total is not None and self._total.shape != words.shape:
            raise SecureSumError(f"{len(words)} words do not add to {len(self._total)}.")
        self._total = words.copy() if self._total is None else self._total + words
        self._arrived.append(client)

    def arrived(self) -> bytes:
        """Return ARRIVED for those in the sum; raise SecureSumError below the threshold."""
        self._enough(len(self._arrived), "masked payloads")
        self._now = Step.UNMASK
        self._arrived.sort()
        return pack(Step.ARRIVED, self._context, SERVER, numbers(self._arrived))

    def take_unmasking(self, message: bytes) -> None:
        """Take UNMASK; raise SecureSumError for a share that is not the one committed to."""
        client, body = unpack(message, Step.UNMASK, self._context)
        self._expect(Step.UNMASK, client, self._arrived, self._shares)
        if len(body) != SECRET_BYTES * len(self._sent):
            raise SecureSumError(f"{len(body)} bytes are not {len(self._sent)} shares.")
        shares, place = parts(body, SECRET_BYTES), self._roster.place(client)
        for owner, share in zip(self._sent, shares, strict=True):
            kind = 1 if owner in self._arrived else 0
            about = about_pair(self._context, b"box", owner, client)
            if commitment(share, about) != self._sent[owner].shares[place][kind]:
                raise SecureSumError(f"client {client} sent a wrong share of client {owner}'s.")
        self._shares[client] = shares

    def total(self) -> Words:
        """Return the sum of the words of all that arrived [numbers], without masks.

        Raises SecureSumError if too few shares came, or a client's shares do not fit together.
        """
        self._enough(len(self._shares), "shares to unmask with")
        assert self._total is not None
        total, count = self._total.copy(), len(self._total)
        helpers = {self._roster.place(c): c for c in list(self._shares)[: self._threshold]}
        for number, owner in enumerate(self._sent):
            seed = joined({place: self._shares[c][number] for place, c in helpers.items()})
            if owner in self._arrived:
                total -= self._self_mask(owner, seed, count)
            else:
                self._take_off_pairs(total, owner, seed)
        return total

    # Their parts.

    def _self_mask(self, owner: int, seed: bytes, count: int) -> Words:
        about = about_self(self._context, owner)
        if commitment(seed, about) != self._sent[owner].seed:
            raise SecureSumError(f"the shares of client {owner}'s mask do not fit together.")
        return stream(derived(seed, about), count)

    def _take_off_pairs(self, total: Words, dropped: int, seed: bytes) -> None:
        """Take the masks of those in the sum with one that is not off the total, in place."""
        key = private_key(seed)
        if public_bytes(key) != self._roster.keys[dropped][1]:
            raise SecureSumError(f"the shares of client {dropped}'s key do not fit together.")
        for client in self._arrived:
            about = about_masks(self._context, client, dropped)
            own = stream(agreed(key, self._roster.keys[client][1], about), len(total))
            (np.subtract if dropped > client else np.add)(total, own, out=total)

    def _expect(self, step: Step, client: int, known: Container[int], had: Container[int]) -> None:
        if step != self._now:
            raise SecureSumError(f"step {int(step)} of the masked sum is over, or not yet due.")
        if client not in known:
            raise SecureSumError(f"client {client} does not take part in this step.")
        if client in had:
            raise SecureSumError(f"client {client} sent the same message twice.")

    def _enough(self, count: int, what: str) -> None:
        if count < self._threshold:
            raise SecureSumError(
                f"{what} of {count} clients came, and the masked sum takes {self._threshold}."
            )
