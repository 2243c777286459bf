"""A server built without clients' texts, a client built without anybody else's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from airtune.build import (
    Core,
    ServerParts,
    client_models,
    core,
    setup,
    tested_clients,
)
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation.contents import Ready, Start
from airtune.federation.in_process import Kind, LocalClients, States
from airtune.federation.letters import plain_texts
from airtune.federation.measuring import MeasuredCell
from airtune.federation.remote import AskingEvaluator, Remote
from airtune.federation.secure.devices import these_devices
from airtune.federation.secure.setup import sum_terms, sums
from airtune.fitting import check_data, check_models, check_security
from airtune.learning.config import ServerConfig
from airtune.learning.data.apart import (
    OneShare,
    device_table,
    own_share,
    public_columns,
    server_table,
    without_rows,
)
from airtune.learning.data.partition import Ragged, Share, Shares
from airtune.learning.data.sources import Table
from airtune.learning.learner import Learner
from airtune.loading import Models, chosen_device
from airtune.methods.method import Method
from airtune.methods.registry import find
from airtune.planned_seconds import PlannedSeconds, batch_tokens
from airtune.radio.cell import Cell

if TYPE_CHECKING:
    from airtune.deploy.masking import Masking

# Two of the pieces that letters travel in, four seconds at 1 Mbit/s: of less, what a network lets
# pass at once before it holds back is too much.
_SOUNDING_BYTES = 1 << 19
_SKETCHED = 8  # numbers at either end of a tensor that a model's sketch looks at


def build_server(experiment: Experiment, remote: Remote, table: Table | None = None) -> ServerParts:
    """Set the server up, and the devices that ``remote`` has gathered.

    ``table`` stands for the data that the experiment names. Raises UserError where something does
    not fit together.
    """
    method_class = find(experiment.method.name)
    check_models(experiment, method_class)
    check_apart(experiment, method_class)
    check_security(experiment, method_class)
    device = chosen_device(experiment.machine)
    if table is None:
        table = server_table(experiment.data, experiment.seed, method_class.needs_public)
    # Its test rows stand for those that the server does not see: their columns are the same.
    check_data(replace(table, train=table.test), experiment.method.name, method_class)
    table = without_rows(table)
    shares = _shares(experiment, remote)
    parts = core(experiment, Models(experiment, table, table.train, device), shares)
    starts = _Starts(experiment, table, parts.width, shares.examples)
    sketches = [sketch(kind.learner) for kind in parts.kinds]
    cell: Cell | MeasuredCell
    if experiment.cell.measured:
        cell = MeasuredCell(experiment.cell, len(shares), experiment.seed)
        remote.measure(cell)
        ready = remote.start(starts, sketches)
        remote.sound()
    else:
        cell = Cell(experiment.cell, len(shares), experiment.seed, experiment.clients.asked)
        ready = remote.start(starts, sketches)
    tokens = [ready[client].batch_tokens for client in range(len(shares))]
    seconds = PlannedSeconds(experiment, parts.kinds, tokens)
    method = method_class(
        experiment.method, setup(experiment, parts, shares.examples, seconds, parts.width)
    )
    tested = [c for c in tested_clients(experiment, len(shares)) if ready[c].test_examples]
    model = parts.learner.model
    return ServerParts(
        table,
        model.backbone,
        model,
        parts.learner,
        method,
        remote,
        AskingEvaluator(method, parts.learner, parts.test, parts.kinds[0].test, remote, tested),
        cell,
        shares,
        parts.kinds,
        sums(experiment.security, method, these_devices(remote)),
    )


def check_apart(experiment: Experiment, method: type[Method]) -> None:
    """Refuse what needs clients' texts or the server's state where it is not."""
    models = [*client_models(experiment), experiment.server.model or experiment.model]
    if method.answers_prompts or method.judges:
        raise UserError(
            f"method.name: '{experiment.method.name}' looks at clients' prompts from the server, "
            "which devices keep to themselves; run it in one process, or name another method."
        )
    if any(model.prototypes is not None for model in models):
        raise UserError(
            "model.prototypes: such heads are made of training rows, which devices keep to "
            "themselves; leave it out."
        )
    if experiment.clients.global_texts:
        raise UserError(
            "clients.global_texts: devices do not have the server's test texts; leave it out."
        )


@dataclass(frozen=True)
class OwnClient:
    """A device's one client: what trains it, and which of its rows test it.

    ``masking`` is there where uploads are masked, and is then the only way to have it trained.
    """

    clients: LocalClients
    kind: Kind
    share: Share
    ready: Ready
    masking: Masking | None = None

    def tested(self) -> bool:
        """Return whether it has texts to test its own model on."""
        return len(self.share.test) > 0


def build_client(
    experiment: Experiment,
    start: Start,
    public: Mapping[str, list[str | None]],
    files: tuple[str, str | None],
    states: States,
) -> OwnClient:
    """Set up the one client whose rows are in ``files``, those to test on in the second of them.

    ``experiment`` is the server's, with this device's machine. Raises UserError where something
    does not fit together.
    """
    client, count = start.client, len(start.examples)
    model = client_models(experiment)[client % len(client_models(experiment))]
    clients = experiment.clients.model_copy(update={"models": ()})
    own = experiment.model_copy(
        update={"model": model, "clients": clients, "server": ServerConfig()}
    )
    check_security(own, find(own.method.name))
    device = chosen_device(own.machine)
    table, first_test = device_table(own.data, files, start.task, start.classes, public)
    fraction = clients.test_fraction if files[1] is None else None
    share = own_share(len(table.train), first_test, fraction, own.seed, client, str(client))
    models = Models(own, table, table.train.iloc[:0], device)
    parts: Core = core(own, models, OneShare(share, client, count))
    kind = parts.kinds[0]
    examples = np.array(start.examples, dtype=np.int64)
    method = find(own.method.name)(
        own.method, setup(own, parts, examples, PlannedSeconds(own, parts.kinds), start.width)
    )
    tokens = batch_tokens(own.seed, client, kind.data[client], own.train.batch_size)
    ready = Ready(batch_tokens=tokens, test_examples=len(share.test), sketch=sketch(kind.learner))
    local = LocalClients(method, [kind], states)
    return OwnClient(local, kind, share, ready, _masking(own, method, local, client))


def _masking(
    experiment: Experiment, method: Method, local: LocalClients, client: int
) -> Masking | None:
    terms = sum_terms(experiment.security, method)
    if terms is None:
        return None
    from airtune.deploy.masking import Masking  # its libraries come with an extra

    return Masking(local, terms, client)


def sketch(learner: Learner) -> str:
    """Return a digest of a model: shapes, types and some numbers of each tensor, and its adapter.

    Two machines that load different weights under one name would otherwise learn past each other.
    """
    digest = hashlib.blake2b(digest_size=16)
    named = [*learner.model.backbone.module.named_parameters(), *learner.model.initial.items()]
    for name, tensor in named:
        flat = tensor.detach().reshape(-1)
        ends = torch.cat([flat[:_SKETCHED], flat[-_SKETCHED:]]).float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(ends.numpy().tobytes())
    return digest.hexdigest()


def _shares(experiment: Experiment, remote: Remote) -> Shares:
    """Return how many rows each device has; the rows themselves are not here."""
    members = remote.roster.members
    sizes = np.array([each.rows + (each.test_rows or 0) for each in members], dtype=np.int64)
    rows = Ragged(np.arange(sizes.sum()), np.concatenate([[0], np.cumsum(sizes)]))
    held = {c: each.test_rows for c, each in enumerate(members) if each.test_rows is not None}
    fraction = experiment.clients.test_fraction
    return Shares(rows, [each.device for each in members], fraction, experiment.seed, held)


class _Starts:
    """What each client is told at first."""

    def __init__(
        self, experiment: Experiment, table: Table, width: int, examples: np.ndarray
    ) -> None:
        self._experiment = _without_paths(experiment)
        self._sounding_bytes = _SOUNDING_BYTES if experiment.cell.measured else 0
        self._table, self._width = table, width
        self._examples: Sequence[int] = examples.tolist()
        self._public = plain_texts(public_columns(table)) if len(table.public) else b""

    def __call__(self, client: int) -> tuple[Start, bytes]:
        start = Start(
            experiment=self._experiment,
            client=client,
            examples=list(self._examples),
            task=self._table.task,
            classes=self._table.classes,
            width=self._width,
            sounding_bytes=self._sounding_bytes,
        )
        return start, self._public


def _without_paths(experiment: Experiment) -> dict[str, object]:
    """Return the experiment for devices: the server's files and machine are its own business."""
    values: dict[str, object] = experiment.model_dump(mode="json", exclude={"machine", "versions"})
    data = experiment.data
    own = data.model_copy(
        update={
            "train": None if data.train is None and data.test is None else "own",
            "test": None,
            "public": None,
        }
    )
    values["data"] = own.model_dump(mode="json")
    return values
