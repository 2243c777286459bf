"""Adaptive entropy coding: symbols cost what they surprise, given all that was coded before.

The range coder is that of the ``constriction`` library; the models are counts. Nothing of a model
travels: writer and reader count the same symbols. Probabilities come from integers and powers of
two by one division, so both sides compute the same numbers on any machine.
"""

from __future__ import annotations

import constriction
import numpy as np

from airtune.wire.container import WireError

_Categorical = constriction.stream.model.Categorical(perfect=False)


def _fixed(chances: np.ndarray) -> constriction.stream.model.Model:
    """Return the model in which all symbols have these chances, [symbols]."""
    return constriction.stream.model.Categorical(chances, perfect=False)


class Counts:
    """How often each of ``symbols`` occurred in each of ``contexts``, on top of a prior."""

    def __init__(self, prior: np.ndarray) -> None:
        """``prior`` [contexts, symbols] counts as observations made before the first."""
        self._counts = np.array(prior, dtype=np.float64)
        self.contexts, self.symbols = self._counts.shape

    def probabilities(self, contexts: np.ndarray) -> np.ndarray:
        """Return the probability of each symbol in these contexts, [n, symbols]."""
        rows = self._counts[contexts]
        return np.asarray(rows / rows.sum(axis=1, keepdims=True))

    def learn(self, contexts: np.ndarray, symbols: np.ndarray) -> None:
        """Count symbols [n] that occurred in ``contexts`` [n]."""
        np.add.at(self._counts, (contexts, symbols), 1.0)


class Writer:
    """Codes symbols; ``model_bits`` is what they cost by their probabilities alone."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self.model_bits = 0.0

    def code(self, symbols: np.ndarray, model: Counts, contexts: np.ndarray) -> np.ndarray:
        """Write symbols [n], each in its context, then learn from them; return them."""
        if len(contexts) and model.symbols > 1:
            if model.contexts == 1:  # one table serves all: the same bytes in a tenth of the time
                (one,) = model.probabilities(contexts[:1])
                self._encoder.encode(symbols.astype(np.int32), _fixed(one))
                self.model_bits -= float(np.log2(one[symbols]).sum())
            else:
                chances = model.probabilities(contexts)
                self._encoder.encode(symbols.astype(np.int32), _Categorical, chances)
                self.model_bits -= float(np.log2(chances[np.arange(len(symbols)), symbols]).sum())
            model.learn(contexts, symbols)
        return symbols

    def code_evenly(self, symbols: np.ndarray, size: int) -> np.ndarray:
        """Write symbols below ``size``, all equally likely."""
        if len(symbols) and size > 1:
            uniform = constriction.stream.model.Uniform(size)
            self._encoder.encode(symbols.astype(np.int32), uniform)
            self.model_bits += len(symbols) * float(np.log2(size))
        return symbols

    def finish(self) -> bytes:
        """Return the bytes; zeros at their end go, as the reader puts them back."""
        words = self._encoder.get_compressed().astype("<u4")
        return words.tobytes().rstrip(b"\0")


class Reader:
    """Reads what a :class:`Writer` wrote, asked in the same order with the same models."""

    def __init__(self, data: bytes) -> None:
        padded = data + b"\0" * (-len(data) % 4)
        self._decoder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, dtype="<u4").astype(np.uint32)
        )

    def code(self, symbols: np.ndarray, model: Counts, contexts: np.ndarray) -> np.ndarray:
        """Read as many symbols as there are contexts; those given are not looked at."""
        del symbols
        if not len(contexts) or model.symbols == 1:
            return np.zeros(len(contexts), dtype=np.int64)
        try:
            if model.contexts == 1:
                (one,) = model.probabilities(contexts[:1])
                found = self._decoder.decode(_fixed(one), len(contexts))
            else:
                found = self._decoder.decode(_Categorical, model.probabilities(contexts))
            read = np.asarray(found, dtype=np.int64)
        except (AssertionError, ValueError) as error:
            raise WireError("the coded entries cannot be read.") from error
        model.learn(contexts, read)
        return read

    def code_evenly(self, symbols: np.ndarray, size: int) -> np.ndarray:
        """Read as many symbols below ``size`` as are given."""
        if not len(symbols) or size <= 1:
            return np.zeros(len(symbols), dtype=np.int64)
        uniform = constriction.stream.model.Uniform(size)
        try:
            return np.asarray(self._decoder.decode(uniform, len(symbols)), dtype=np.int64)
        except (AssertionError, ValueError) as error:
            raise WireError("the coded entries cannot be read.") from error

    def is_at_end(self) -> bool:
        """Return whether nothing follows what was read, as far as the bytes tell."""
        return bool(self._decoder.maybe_exhausted())
