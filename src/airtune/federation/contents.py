"""What letters say, one class for each kind; a letter with other fields is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airtune.federation.interface import Order, Reply, Took
from airtune.federation.records import MaskingStep
from airtune.radio.grant import Grant

Count = Annotated[int, Field(ge=0, lt=2**62)]
Sentence = Annotated[str, Field(max_length=2000)]


class Content(BaseModel):
    """Fields of one kind of letter: exact types, no others.

    Infinite and missing numbers stay what they are: a grant without a deadline has infinite bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Greeting(Content):
    """From the server, to whoever is there: a question who it is."""


class Presence(Content):
    """A device's answer: its lasting name, and the rows that it has.

    ``wanted`` is the number that it was told to take among the clients. ``test_rows`` are those of
    a file of their own, None where some of ``rows`` are held out. ``working`` says whether it is
    set up for the run that greets it: a device that was started again is not. ``heard`` is the
    largest number of that run's letters that it heard.
    """

    device: Annotated[str, Field(min_length=1, max_length=200)]
    rows: Annotated[int, Field(ge=1, lt=2**27)]
    test_rows: Annotated[int, Field(ge=0, lt=2**27)] | None = None
    wanted: Count | None = None
    working: bool = False
    heard: Count = 0
    machine: dict[str, str] = {}


class Trip(Content):
    """How a letter went over a device's link, as the device measured.

    ``round`` is the letter's, 0 of what was sent to sound the link; ``bytes`` moved in ``seconds``
    for its body of ``body_bytes``.
    """

    round: Count
    body_bytes: Count
    bytes: Count
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Answering(Content):
    """An answer of a device that tells how its last upload went, once."""

    last_up: Trip | None = None


class Start(Content):
    """From the server: the experiment, and which of its clients the device is.

    ``examples`` [clients] are what all learn from, ``width`` the classes, or entries of the
    vocabulary, that all models have. The answer is to have a body of ``sounding_bytes``, to measure
    the link by. The body has the public texts.
    """

    experiment: dict[str, Any]
    client: Count
    examples: list[Count]
    task: Literal["classification", "causal"]
    classes: list[str]
    width: Count
    sounding_bytes: Annotated[int, Field(ge=0, le=1 << 24)] = 0


class Ready(Content):
    """A device's answer: what planning needs, and what its model looks like.

    ``batch_tokens`` are those of a usual batch, padding included. ``sketch`` is a digest by which
    the server knows that the device has the same backbone.
    """

    batch_tokens: float
    test_examples: Count
    sketch: Annotated[str, Field(max_length=64)]


class Task(Content):
    """An order; its message is the body.

    ``settled`` is the last round that the server will never repeat. ``boxes_bytes`` are there where
    uploads are masked: so many bytes before the message are what others shared with this client.
    """

    round: Count
    settled: Count
    bits: float
    power_w: float
    bandwidth_hz: float
    rate_bps: float
    boxes_bytes: Count | None = None

    @classmethod
    def of(cls, order: Order, settled: int, boxes: bytes | None = None) -> Task:
        """Return the content of an order's letter."""
        grant = order.grant
        return cls(
            round=order.round,
            settled=settled,
            bits=float(grant.bits),
            power_w=float(grant.power_w),
            bandwidth_hz=float(grant.bandwidth_hz),
            rate_bps=float(grant.rate_bps),
            boxes_bytes=None if boxes is None else len(boxes),
        )

    def order(self, client: int, message: bytes) -> Order:
        """Return the order."""
        grant = Grant(client, self.bits, self.power_w, self.bandwidth_hz, self.rate_bps)
        return Order(client, self.round, message, grant)


class Done(Answering):
    """The reply to an order; its message, if ``sent``, is the body.

    ``compute_seconds`` lie between letter and answer; ``down`` is how the letter came.
    """

    sent: bool
    tokens: Count
    compute_seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    down: Trip | None = None
    loss: float | None = None
    problem: Sentence | None = None
    diverged: bool = False
    predicted_tokens: Count = 0
    notes: dict[str, int | float | str] = {}
    gradient_norm: float | None = None

    @classmethod
    def of(cls, reply: Reply) -> Done:
        """Return the content of a reply's letter."""
        return cls(
            sent=reply.message is not None,
            tokens=int(reply.tokens),
            loss=reply.loss,
            problem=reply.problem,
            diverged=reply.diverged,
            predicted_tokens=int(reply.predicted_tokens),
            notes=dict(reply.notes),
            gradient_norm=reply.gradient_norm,
        )

    def reply(self, client: int, message: bytes, seconds: float) -> Reply:
        """Return the reply, ``seconds`` after its order."""
        return Reply(
            client,
            message if self.sent else None,
            self.loss,
            self.tokens,
            self.problem,
            self.diverged,
            self.predicted_tokens,
            self.notes,
            self.gradient_norm,
            took=Took(seconds, min(self.compute_seconds, seconds)),
        )


class SumStep(Content):
    """From the server: a step of a round's masked sum; what the server sent for it is the body."""

    round: Count
    step: MaskingStep


class SumAnswer(Answering):
    """A device's answer to a step of a masked sum; what it sends for it is the body."""


class Question(Content):
    """From the server: a question how good the model is that the body, a broadcast, would make."""

    round: Count


class Scores(Answering):
    """A device's answer: measures of its own model on its own test texts, by name."""

    scores: dict[str, float]


class Inquiry(Content):
    """From the server: a question how the last upload went."""


class Inquired(Answering):
    """A device's answer to that, and nothing else."""


class Problem(Content):
    """A device's answer where it could not do what it was asked to: one sentence.

    ``unready``: it would, if it got the run's start first, as a device that was started again.
    """

    sentence: Sentence
    unready: bool = False


KINDS: dict[int, type[Content]] = {
    1: Greeting,
    2: Presence,
    3: Start,
    4: Ready,
    5: Task,
    6: Done,
    7: Question,
    8: Scores,
    9: Problem,
    10: Inquiry,
    11: Inquired,
    12: SumStep,
    13: SumAnswer,
}
