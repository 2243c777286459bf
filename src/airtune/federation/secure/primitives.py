"""What the masked sum takes from cryptography's libraries, under names of its own.

Keys agree by X25519, are derived by HKDF-SHA256, streams are ChaCha20, boxes ChaCha20-Poly1305 (all
of ``cryptography``); shares are Shamir's over GF(2^128) (``Crypto.Protocol.SecretSharing``).
Secrets come from the operating system, never from an experiment's seed: a sum depends on none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airtune.federation.secure.messages import SecureSumError
from airtune.wire.fixed_point import Words

SECRET_BYTES = 16  # of a seed, and so of each of its shares: the security level is 128 bits
BOX_BYTES = 2 * SECRET_BYTES + 16  # two shares and the tag
_NONCE = bytes(12)  # a key seals one box, so its nonce may be constant


def derived(secret: bytes, about: bytes) -> bytes:
    """Return 32 bytes made of a secret for one purpose."""
    return HKDF(SHA256(), 32, None, b"airtune masked sum 1|" + about).derive(secret)


def private_key(seed: bytes) -> X25519PrivateKey:
    """Return the key that 16 bytes stand for, so that these alone need to be shared."""
    return X25519PrivateKey.from_private_bytes(derived(seed, b"private key"))


def public_bytes(key: X25519PrivateKey) -> bytes:
    """Return the 32 bytes of a key's public half."""
    return key.public_key().public_bytes_raw()


def agreed(key: X25519PrivateKey, other: bytes, about: bytes) -> bytes:
    """Return the 32 bytes that the owners of two keys have in common for one purpose.

    Raises SecureSumError for a public key that agrees with every key on the same.
    """
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise SecureSumError("a public key is of small order: no secret comes of it.") from error
    return derived(secret, about)


def stream(key: bytes, count: int) -> Words:
    """Return ``count`` words [count] that nobody without the 32-byte key tells from uniform ones.

    A key makes one stream only.
    """
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * count)), dtype="<u4").astype(np.uint32)


def seal(key: bytes, shares: Sequence[bytes], about: bytes) -> bytes:
    """Return a box of two shares, bound to what it is about; a key seals one box only."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, b"".join(shares), about)


def unseal(key: bytes, box: bytes, about: bytes) -> tuple[bytes, bytes]:
    """Return the shares in a box; raise SecureSumError if it is not the one that was sealed."""
    try:
        found = ChaCha20Poly1305(key).decrypt(_NONCE, box, about)
    except InvalidTag as error:
        raise SecureSumError("a box of shares was altered, or is of another time.") from error
    return found[:SECRET_BYTES], found[SECRET_BYTES:]


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Return ``count`` shares of 16 bytes; ``threshold`` of them give the secret, fewer nothing."""
    return [share for _, share in Shamir.split(threshold, count, secret, False)]


def joined(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of exactly as many shares as its threshold, by place from 0 on."""
    found: bytes = Shamir.combine([(place + 1, share) for place, share in shares.items()], False)
    return found


def commitment(value: bytes, about: bytes) -> bytes:
    """Return 16 bytes that fix a value of 128 random bits and do not tell it (BLAKE2b)."""
    return hashlib.blake2b(value + about, digest_size=16, person=b"airtune masked").digest()
