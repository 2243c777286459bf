"""A device of a run: it holds a backbone and one client's rows, and answers letters."""

from __future__ import annotations

import secrets
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from airtune.deploy.halves import OwnClient, build_client
from airtune.deploy.kept import is_new, last_heard, lasting_name
from airtune.deploy.meter import Meter
from airtune.deploy.trips import Trips
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.contents import (
    Content,
    Done,
    Greeting,
    Inquired,
    Inquiry,
    Presence,
    Problem,
    Question,
    Ready,
    Scores,
    Start,
    SumAnswer,
    SumStep,
    Task,
)
from airtune.federation.evaluation import measures
from airtune.federation.letters import NO_RUN, Letter, LetterError, read, read_texts, write
from airtune.federation.round_states import RoundStates
from airtune.federation.secure.messages import SecureSumError
from airtune.learning.config import MachineConfig
from airtune.learning.data.apart import count_rows

if TYPE_CHECKING:
    from airtune.deploy.masking import Masking

Answer = tuple[Content, bytes]


@dataclass(frozen=True)
class Holdings:
    """What a device has: rows, a folder for what it keeps, and its own way to compute.

    ``test`` are rows to test on; without them some of ``train`` are held out. ``model`` is where
    the backbone lies here, if not under the name that the experiment has for it. ``wanted`` is the
    number among the clients that it is to take.
    """

    train: str
    test: str | None = None
    personal: Path = Path("personal")
    machine: MachineConfig = field(default_factory=MachineConfig)
    model: str | None = None
    wanted: int | None = None


class Device:
    """Answers every letter with a letter; what it keeps between rounds is on its own disk.

    Reasons that speak of its rows are only said here; the server hears that there is one.
    """

    def __init__(
        self, holdings: Holdings, say: Callable[[str], None], meter: Meter | None = None
    ) -> None:
        """Look at the rows; raise UserError if they cannot be read.

        ``meter`` measures the link, where letters come over one.
        """
        self._holdings, self._say = holdings, say
        self._trips = Trips(meter)
        test = holdings.test
        self._rows = count_rows(holdings.train, "--train")
        self._test_rows = None if test is None else count_rows(test, "--test")
        holdings.personal.mkdir(parents=True, exist_ok=True)
        self._name = lasting_name(holdings.personal / "device")
        self._run = self._greeted = NO_RUN
        self._started: tuple[Start, bytes] | None = None
        self._own: OwnClient | None = None
        self._states: RoundStates | None = None

    def answer(self, data: bytes) -> bytes:
        """Return the answer to a letter, whatever it is."""
        try:
            letter = read(data)
        except LetterError as error:
            self._say(f"refused a letter: {error}")
            return write(Letter(NO_RUN, 0, Problem(sentence=f"it could not be read: {error}")))
        self._trips.begin()
        content, body = self._safely(letter)
        content = self._trips.told(letter, content, body)
        return write(Letter(letter.run, letter.sequence, content, body))

    def _safely(self, letter: Letter) -> Answer:
        try:
            return self._do(letter)
        except (LetterError, UserError) as error:
            self._say(str(error))
            return Problem(sentence="it does not fit this device, whose log says why."), b""
        except SecureSumError as error:  # these speak of clients and steps only
            self._say(str(error))
            return Problem(sentence=str(error)), b""
        except Exception as error:
            # Where, but not with what: a message may hold a text.
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            self._say(f"failed: {kind} in {Path(place.filename).name}, line {place.lineno}")
            return Problem(sentence=f"the device failed ({kind}); its log says where."), b""

    def _do(self, letter: Letter) -> Answer:
        content = letter.content
        if isinstance(content, Greeting):
            if letter.run != self._greeted:
                self._greeted = letter.run
                self._say(f"connected as device {self._name}, and waits for the run to begin")
            return self._presence(letter.run), b""
        folder = self._holdings.personal / letter.run.hex()
        if not is_new(folder / "heard", letter.sequence):
            self._say(f"refused letter {letter.sequence}, which was heard before")
            return Problem(sentence="this letter was heard before."), b""
        if isinstance(content, Start):
            return self._start(letter, content, folder), secrets.token_bytes(content.sounding_bytes)
        if isinstance(content, Inquiry):
            return Inquired(), b""
        if letter.run != self._run or self._own is None:
            return Problem(sentence="the device was not set up for this run.", unready=True), b""
        if isinstance(content, Task):
            return self._train(content, letter.body)
        if isinstance(content, Question):
            return self._score(content, letter.body), b""
        if isinstance(content, SumStep):
            return SumAnswer(), self._masking().answer(content, letter.body)
        kind = type(content).__name__
        return Problem(sentence=f"a device has no answer to a {kind}."), b""

    def _presence(self, run: bytes) -> Presence:
        return Presence(
            device=self._name,
            rows=self._rows,
            test_rows=self._test_rows,
            wanted=self._holdings.wanted,
            working=run == self._run,
            heard=last_heard(self._holdings.personal / run.hex() / "heard"),
            machine={"torch": version("torch"), "airtune": version("airtune")},
        )

    def _start(self, letter: Letter, start: Start, folder: Path) -> Ready:
        if letter.run == self._run and self._own and self._started == (start, letter.body):
            return self._own.ready  # the server was started again, this device was not
        self._run, self._own = NO_RUN, None
        self._stay_masked(start, folder / "masked")
        if start.client >= len(start.examples):
            raise LetterError(f"there is no client {start.client} of {len(start.examples)}.")
        experiment = self._experiment(start)
        public = read_texts(letter.body) if letter.body else {}
        files = self._holdings.train, self._holdings.test
        self._states = RoundStates(folder / "states")
        self._own = build_client(experiment, start, public, files, self._states)
        self._run, self._started = letter.run, (start, letter.body)
        self._say(f"client {start.client} of '{experiment.name}' ({experiment.method.name})")
        return self._own.ready

    def _stay_masked(self, start: Start, note: Path) -> None:
        """Refuse to unmask what a run promised to mask."""
        security = start.experiment.get("security")
        masked = isinstance(security, dict) and bool(security.get("secure_sum"))
        if note.exists() and not masked:
            raise LetterError("this run masked its uploads, and does not any more.")
        if masked:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()

    def _experiment(self, start: Start) -> Experiment:
        values = dict(start.experiment)
        if self._holdings.model is not None:
            models = [values.get("model") or {}, *(values.get("clients") or {}).get("models", ())]
            for model in models:
                model["name"] = self._holdings.model
        return Experiment(**values, machine=self._holdings.machine)

    def _train(self, task: Task, body: bytes) -> Answer:
        assert self._own is not None and self._states is not None and self._started is not None
        message = body[task.boxes_bytes or 0 :]
        order = task.order(self._started[0].client, message)
        masking = self._own.masking
        # The run's start decides: a server that forgets the boxes does not get a plain upload.
        if (masking is None) != (task.boxes_bytes is None):
            raise SecureSumError("the run masks uploads and the order does not, or the reverse.")
        self._states.begin(task.round, task.settled)
        if masking is None:
            (reply,) = self._own.clients.exchange([order])
        else:
            reply = masking.train(order, body[: task.boxes_bytes])
        said = reply.problem or f"{len(message)} bytes heard, {len(reply.message or b'')} sent"
        self._say(f"round {task.round}: {said}")
        return Done.of(reply), reply.message or b""

    def _masking(self) -> Masking:
        assert self._own is not None
        if self._own.masking is None:
            raise SecureSumError("uploads of this run are not masked.")
        return self._own.masking

    def _score(self, question: Question, broadcast: bytes) -> Scores:
        assert self._own is not None and self._states is not None and self._started is not None
        own, client = self._own, self._started[0].client
        self._states.look(question.round)
        adapter = own.clients.personal_adapter(client, question.round, broadcast)
        seen = own.kind.learner.evaluate(adapter, own.kind.pool.at(own.share.test))
        return Scores(scores=measures(seen, slice(None)))


def machine_of(device: str) -> MachineConfig:
    """Return the machine with this device of torch; raise UserError for a word that is none."""
    try:
        return MachineConfig(device=device)
    except ValidationError as error:
        raise UserError(
            f"--device: '{device}' is no device; valid are auto, cpu, cuda, cuda:N, mps."
        ) from error


def to_stderr(sentence: str) -> None:
    """Say something in a log of lines; what others say must not write lines of its own."""
    shown = "".join(each if each.isprintable() else "?" for each in sentence)
    print(f"airtune: {shown}", file=sys.stderr, flush=True)
