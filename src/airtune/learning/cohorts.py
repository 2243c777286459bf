"""Which clients train side by side, and how many."""

from __future__ import annotations

from collections.abc import Hashable

_TRIALS = 2  # of each size: the first pays for memory and kernels that later ones find ready
_RECENT = 7
_WORTH = 0.97  # a larger cohort must be cheaper by 3 %, as it takes more memory


class CohortSizes:
    """How many clients share a pass: as the user says, or as work done so far shows to be fastest.

    Sizes 1, 2, 4 ... are tried on the first clients of a kind of work, for as long as doubling
    makes a token cheaper. Nothing is computed for the trial only: results do not depend on the
    size, so what is timed is the run itself.
    """

    def __init__(self, fixed: int | None, tokens_per_pass: int) -> None:
        """``tokens_per_pass`` bounds the memory that a chosen size may take."""
        self._fixed, self._tokens_per_pass = fixed, tokens_per_pass
        self._seconds: dict[tuple[Hashable, int], list[float]] = {}

    def choose(self, work: Hashable, clients: int, step_tokens: float) -> int:
        """Return how many of ``clients`` to train side by side.

        ``work`` names what is alike enough to be timed together; ``step_tokens`` are those of one
        client's step.
        """
        if self._fixed is not None:
            return min(self._fixed, clients)
        limit = max(1, min(_power(clients), int(self._tokens_per_pass / step_tokens)))
        size = min(self._fastest(work, limit), clients)
        # Even cohorts: of 10 clients at a size of 8, two times 5.
        return -(-clients // -(-clients // size))

    def _fastest(self, work: Hashable, limit: int) -> int:
        best, size = 1, 1
        while True:
            seconds = self._seconds.get((work, size), [])
            if len(seconds) < _TRIALS:
                return size
            # Whatever disturbs a machine makes it slower, so the least is the best estimate.
            if min(seconds) < _WORTH * min(self._seconds[work, best]):
                best = size
            if size * 2 > limit or size > best:
                return best
            size *= 2

    def record(self, work: Hashable, clients: int, tokens: int, seconds: float) -> None:
        """Note what a cohort of ``clients`` took for ``tokens``."""
        if self._fixed is None and tokens:
            known = self._seconds.setdefault((work, _power(clients)), [])
            known.append(seconds / tokens)
            del known[:-_RECENT]


def _power(clients: int) -> int:
    """Return the power of two that stands for a size when times are compared: the next one."""
    return 1 << (clients - 1).bit_length()
