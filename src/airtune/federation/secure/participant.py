"""A client's side of a masked sum: four messages, each once."""

from __future__ import annotations

import secrets

from airtune.federation.secure.agreement import (
    ENTRY_BYTES,
    Roster,
    about_masks,
    about_pair,
    about_self,
)
from airtune.federation.secure.messages import (
    SecureSumError,
    Step,
    clients_in,
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
    private_key,
    public_bytes,
    seal,
    split,
    stream,
    unseal,
)
from airtune.wire.fixed_point import Words


class Participant:
    """One client in one round; its secrets live as long as it does.

    ``y_u = q_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv) mod 2^32`` over the
    clients v whose shares came. Pairwise masks s_uv cancel in a sum. Self masks b_u cover what is
    late: the server gets shares of one of a client's two secrets, never of both.

    A step that is asked for twice is refused: a second sum under the same masks would show the
    difference of two uploads, a second unmasking both secrets.

    Source: Bonawitz et al. 2017, practical secure aggregation (1611.04482), figure 4, without the
    signatures and the consistency check against a server that lies. FOUND: masks, shares, steps.
    DERIVED: a threshold above half of the roster, so that a server that tells clients different
    lists still gets no two secrets of a client without the help of 2 threshold - clients others.
    Ours: a key's seed of 16 bytes is shared in its place; commitments to shares.
    """

    def __init__(self, client: int, context: bytes, threshold: int) -> None:
        """``context`` are the 16 bytes of the round, ``threshold`` how many must stay."""
        self._client, self._context, self._threshold = client, context, threshold
        self._box_key = private_key(secrets.token_bytes(SECRET_BYTES))
        self._mask_seed, self._self_seed = (secrets.token_bytes(SECRET_BYTES) for _ in range(2))
        self._mask_key = private_key(self._mask_seed)
        self._roster = Roster({})
        # Of all whose shares came, by ascending client: (of its mask key, of its self mask).
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._done: list[Step] = []

    def keys(self) -> bytes:
        """Return the public keys, KEYS."""
        self._enter(Step.KEYS)
        own = public_bytes(self._box_key) + public_bytes(self._mask_key)
        return pack(Step.KEYS, self._context, self._client, own)

    def shares(self, message: bytes) -> bytes:
        """Return SHARES of both secrets for all of a ROSTER.

        Raises SecureSumError for a roster without these keys, too short, or so long that the
        threshold is no more than half of it.
        """
        _, body = unpack(message, Step.ROSTER, self._context, ENTRY_BYTES)
        roster = Roster.read(body)
        own = public_bytes(self._box_key), public_bytes(self._mask_key)
        if roster.keys.get(self._client) != own:
            raise SecureSumError("the roster does not have this client's keys.")
        count = len(roster.keys)
        if not count >= self._threshold > count / 2:
            raise SecureSumError(
                f"a roster of {count} clients does not fit a threshold of {self._threshold}."
            )
        self._enter(Step.SHARES)
        self._roster = roster
        seeds = self._mask_seed, self._self_seed
        split_up = list(zip(*(split(s, self._threshold, count) for s in seeds), strict=True))
        commitments, boxes = (
            [commitment(self._self_seed, about_self(self._context, self._client))],
            [],
        )
        for client, pair in zip(roster.clients, split_up, strict=True):
            about = about_pair(self._context, b"box", self._client, client)
            commitments += [commitment(share, about) for share in pair]
            if client == self._client:
                self._held[client] = pair
            else:
                key = agreed(self._box_key, roster.keys[client][0], about)
                boxes.append(seal(key, pair, about))
        body = b"".join([*commitments, *boxes])
        return pack(Step.SHARES, self._context, self._client, body)

    def keep(self, message: bytes) -> None:
        """Keep what others shared with this client, BOXES.

        Raises SecureSumError for a box that is not of its sender for this client and round, and if
        too few clients are left.
        """
        _, body = unpack(message, Step.BOXES, self._context, 4 + BOX_BYTES)
        entries = parts(body, 4 + BOX_BYTES)
        senders = clients_in(b"".join(entry[:4] for entry in entries))
        if not set(senders) <= set(self._roster.keys) - {self._client}:
            raise SecureSumError("a box is of no other client of the roster.")
        if len(senders) + 1 < self._threshold:
            raise SecureSumError(
                f"{len(senders) + 1} clients sent shares, and {self._threshold} have to."
            )
        held = dict(self._held)
        for sender, entry in zip(senders, entries, strict=True):
            about = about_pair(self._context, b"box", sender, self._client)
            key = agreed(self._box_key, self._roster.keys[sender][0], about)
            try:
                held[sender] = unseal(key, entry[4:], about)
            except SecureSumError as error:
                raise SecureSumError(f"of client {sender}: {error}") from error
        self._enter(Step.BOXES)
        self._held = dict(sorted(held.items()))

    def mask(self, words: Words) -> Words:
        """Return the masked words [numbers]."""
        self._enter(Step.ARRIVED)
        found = words + stream(
            derived(self._self_seed, about_self(self._context, self._client)), len(words)
        )
        for other in self._held:
            if other != self._client:
                about = about_masks(self._context, self._client, other)
                key = agreed(self._mask_key, self._roster.keys[other][1], about)
                own = stream(key, len(words))
                found = found + own if other > self._client else found - own
        return found

    def unmask(self, message: bytes) -> bytes:
        """Return UNMASK: shares of self masks of those in ARRIVED, of mask keys of the others.

        Raises SecureSumError if the sum has fewer than the threshold, or one that sent no shares.
        """
        _, body = unpack(message, Step.ARRIVED, self._context, 4)
        arrived = clients_in(body)
        if not set(arrived) <= set(self._held):
            raise SecureSumError("the sum names a client that sent no shares.")
        if self._client not in arrived or len(arrived) < self._threshold:
            raise SecureSumError(
                f"a sum of {len(arrived)} clients is not unmasked; it takes {self._threshold}, "
                "this one among them."
            )
        self._enter(Step.UNMASK)
        there = set(arrived)
        own = (pair[1] if client in there else pair[0] for client, pair in self._held.items())
        return pack(Step.UNMASK, self._context, self._client, b"".join(own))

    def _enter(self, step: Step) -> None:
        """Note that a step is done; raise SecureSumError unless it is the next one."""
        order = [Step.KEYS, Step.SHARES, Step.BOXES, Step.ARRIVED, Step.UNMASK]
        if self._done != order[: order.index(step)]:
            raise SecureSumError("a step of the masked sum was asked for twice, or out of turn.")
        self._done.append(step)
