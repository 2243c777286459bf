"""Randomness without global state: a generator is a function of what it is for.

Two draws with the same key are equal wherever and in whatever order they are made, so results
depend neither on cohort size nor on scheduling nor on the number of machines.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return the NumPy generator for ``(seed, purpose, indices)``.

    ``indices`` are whatever identifies the draw beyond its purpose, such as round and client.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, *indices)))


def integer(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit seed for generators that are not NumPy's (torch)."""
    words = _sequence(seed, purpose, *indices).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1


def _sequence(seed: int, purpose: str, *indices: int) -> np.random.SeedSequence:
    # crc32 rather than hash(): the latter changes between interpreter starts.
    # The count keeps (1,) and (1, 0) apart, which zero padding inside would make one.
    entropy = [seed, zlib.crc32(purpose.encode()), len(indices), *indices]
    return np.random.SeedSequence(entropy)
