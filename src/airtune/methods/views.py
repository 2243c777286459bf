"""What hooks are given: the run, a client in one of its rounds, what became of its upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from airtune.learning.config import TrainConfig
from airtune.learning.data.examples import Examples
from airtune.learning.optimiser import Moments
from airtune.learning.projections import Taps
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.scheduling.selector import Selector

if TYPE_CHECKING:  # peft and transformers take seconds to import, and options need neither
    from airtune.learning.adapter import Adapter
    from airtune.learning.learner import Learner
    from airtune.learning.prediction import Prediction

State = dict[str, Any]  # tensors, numbers, strings and dictionaries of them: a checkpoint's content


@dataclass(frozen=True)
class Work:
    """A client's round, to plan its time: optimiser steps, each on ``batch_size`` texts.

    ``predicted`` public texts go through the model once more without training. Where phases make
    their own data, ``made_tokens`` are trained on and ``drawn_tokens`` only pass through the model.
    """

    private_steps: int
    public_steps: int = 0
    public_batch_size: int = 0
    predicted: int = 0
    made_tokens: int = 0
    drawn_tokens: int = 0


@dataclass(frozen=True)
class Setup:
    """What is fixed for a whole run.

    ``selector`` chooses ``per_round`` clients a round. ``examples`` is [clients];
    ``compute_seconds`` maps clients [n] and their :class:`Work` to how long each one's round is
    planned to take, [n]. ``width`` is the number of classes, or of tokens
    in the vocabulary. ``initial`` is a client's adapter before the first round; ``server`` trains
    the server's own model, ``models`` those of the clients; ``public`` are the texts that
    everybody has, in the server's tokens; ``texts`` all private ones, in the first client's.
    """

    seed: int
    train: TrainConfig
    cell: CellConfig
    per_round: int
    selector: Selector
    examples: np.ndarray
    compute_seconds: Callable[[np.ndarray, Work], np.ndarray]
    initial: Adapter
    width: int
    server: Learner
    models: Sequence[Learner]
    public: Examples
    texts: Examples


@dataclass
class Client:
    """One client in one round: ``adapter`` is what trains, ``state`` what survives the round.

    ``heard`` is the broadcast, ``public`` the texts that everybody has, in this client's tokens;
    ``learner`` makes predictions with the adapter, ``moments`` are those of its optimiser.
    ``notes`` go into the ledger beside the upload; ``problem`` says there why nothing was sent.
    ``made`` are the notes of its phases that made their own data.
    """

    index: int
    round: int
    data: Examples
    adapter: Adapter
    public: Examples
    learner: Learner
    heard: Any = None
    state: State = field(default_factory=dict)
    moments: Moments = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)
    made: Sequence[Mapping[str, float]] = ()
    problem: str | None = None
    predicted_tokens: int = 0

    def predict(self, examples: Examples, taps: Taps | None = None) -> Iterator[Prediction]:
        """Yield the adapter's predictions, a pass at a time; they are charged as computing."""
        for seen in self.learner.predict(self.adapter, examples, taps):
            self.predicted_tokens += seen.batch["input_ids"].numel()
            yield seen


@dataclass(frozen=True)
class Delivery:
    """What became of one client that was asked: its payload, None if it did not arrive.

    ``weight`` is its share of all training examples; ``grant`` is None if it was not scheduled;
    ``loss`` is its mean training loss where known, ``seconds`` its computing and sending.
    """

    client: int
    payload: Any
    weight: float
    grant: Grant | None
    loss: float | None
    seconds: float
