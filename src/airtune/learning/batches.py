"""Which rows a cohort trains on, step by step, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from airtune import keyed
from airtune.learning.data.examples import Corpus, Examples


@dataclass(frozen=True)
class Group:
    """Slots that share a pass: their rows [slots * size] of one corpus, padded to ``length``."""

    slots: np.ndarray
    corpus: Corpus
    rows: np.ndarray
    length: int


class Schedule:
    """All batches of one client and phase: reshuffled passes over its rows, laid end to end.

    ``rows`` [steps, size] are the corpus rows of each batch, ``lengths`` [steps] what they are
    padded to. A client with fewer rows than the batch size gives all of them in every batch.
    """

    def __init__(self, data: Examples, steps: int, size: int, rng: np.random.Generator) -> None:
        count = len(data)
        size = min(size, count)
        passes = [rng.permutation(count) for _ in range(-(-steps * size // count))]
        order = np.concatenate([*passes, np.empty(0, dtype=np.int64)])[: steps * size]
        positions = order.reshape(steps, size)
        self.corpus = data.corpus
        self.rows = data.rows[positions].reshape(steps, size * data.sequences)
        self.lengths = data.padded_lengths(positions) if steps else np.empty(0, dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Tokens of all steps, padding included."""
        return int(self.rows.shape[1] * self.lengths.sum())


def schedule(
    data: Examples, steps: int, size: int, seed: int, round: int, client: int, phase: int
) -> Schedule:
    """Return a client's batches of one phase: a function of these arguments alone."""
    return Schedule(data, steps, size, keyed.generator(seed, "batches", round, client, phase))


class CohortBatches:
    """The schedules of a cohort, read step by step without a look at each client."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.steps = max(len(own.lengths) for own in schedules)
        corpora = {id(own.corpus): own.corpus for own in schedules}
        kinds: dict[tuple[int, int], list[int]] = {}
        for slot, own in enumerate(schedules):
            kinds.setdefault((id(own.corpus), own.rows.shape[1]), []).append(slot)
        # Per kind (same corpus, same rows in a batch): slots [n], rows [n, steps, size] and
        # lengths [n, steps], where length 0 means that the client is done.
        self._kinds = []
        for (corpus, size), slots in kinds.items():
            rows = np.zeros((len(slots), self.steps, size), dtype=np.int64)
            lengths = np.zeros((len(slots), self.steps), dtype=np.int64)
            for place, slot in enumerate(slots):
                own = schedules[slot]
                rows[place, : len(own.rows)] = own.rows
                lengths[place, : len(own.lengths)] = own.lengths
            self._kinds.append((corpora[corpus], np.asarray(slots), rows, lengths))

    def step(self, step: int) -> Iterator[Group]:
        """Yield the groups of a step: batches of equal shape can share a pass unpadded.

        Padding one client to another's length would change the order of its floating-point sums.
        """
        for corpus, slots, rows, lengths in self._kinds:
            now = lengths[:, step]
            if now[0] and (now == now[0]).all():
                yield Group(slots, corpus, rows[:, step].reshape(-1), int(now[0]))
                continue
            for length in np.unique(now[now > 0]):
                chosen = now == length
                yield Group(slots[chosen], corpus, rows[chosen, step].reshape(-1), int(length))
