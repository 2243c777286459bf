"""Run an experiment, read one back, hand its adapter on."""

from __future__ import annotations

import json
import platform
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airtune import folder as folders
from airtune.build import ServerParts, build, session
from airtune.errors import UserError, nearest
from airtune.experiment import Experiment
from airtune.federation.costs import Costs
from airtune.federation.devices import Patience
from airtune.federation.evaluation import Personal
from airtune.federation.ledger import plain
from airtune.federation.letters import MOST_BYTES
from airtune.federation.post import Carrier
from airtune.federation.records import RoundRow
from airtune.federation.remote import Remote
from airtune.federation.roster import run_name
from airtune.federation.session import Session, personal_adapter
from airtune.learning.data.sources import Table
from airtune.learning.export import write_adapter
from airtune.results import Run, unfinished

_RECORDED = ("airtune", "torch", "transformers", "peft", "datasets", "safetensors", "numpy")


def run(
    experiment: Experiment | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_round: Callable[[RoundRow], None] | None = None,
) -> Run:
    """Run an experiment to its end and return what it wrote.

    ``on_round`` is called after each round, round 0 (the untrained model) included. Raises
    UserError for an experiment that cannot run, before anything is written.
    """
    described = _with_versions(experiment or Experiment())
    folders.choose(described, out, resume)  # before minutes go into models and data
    return _run(described, build(described), out, resume, on_round)


def serve(
    experiment: Experiment,
    carrier: Carrier,
    out: str | Path | None = None,
    resume: bool = False,
    on_round: Callable[[RoundRow], None] | None = None,
    say: Callable[[str], None] | None = None,
    patience: Patience | None = None,
    table: Table | None = None,
    most_bytes: int = MOST_BYTES,
) -> Run:
    """Run an experiment with clients on devices that ``carrier`` reaches; return what it wrote.

    ``say`` gets sentences about devices, ``table`` stands for the data that the experiment names.
    An answer of more than ``most_bytes`` is refused. Raises UserError as :func:`run`, and where
    devices do not come or do not fit.
    """
    from airtune.deploy.halves import build_server

    described = _with_versions(experiment)
    folder = folders.choose(described, out, resume)
    kept = folder / "checkpoint" / "clients"  # where a session lets clients keep what they need
    name, quiet = run_name(kept), lambda sentence: None
    remote = Remote(
        carrier,
        name or secrets.token_bytes(16),
        described.clients.count,
        _patience(described, patience or Patience()),
        say or quiet,
        most_bytes,
    )
    if name is not None:
        remote.roster.recall(kept)
    remote.gather()
    return _run(described, build_server(described, remote, table), out, resume, on_round)


def _patience(experiment: Experiment, patience: Patience) -> Patience:
    """Return how long to wait: where seconds are real ones, a round ends by its deadline."""
    cell = experiment.cell
    if not cell.measured or cell.deadline_s is None or cell.late == "wait":
        return patience
    if cell.deadline_s > patience.answer:
        raise UserError(
            f"--limit: {patience.answer:g} s are less than cell.deadline_s, {cell.deadline_s:g}, "
            "for which uploads are planned; give as many or more."
        )
    return replace(patience, round=cell.deadline_s)


def _with_versions(experiment: Experiment) -> Experiment:
    versions = {name: version(name) for name in _RECORDED} | {"python": platform.python_version()}
    return experiment.model_copy(update={"versions": versions})


def _run(
    experiment: Experiment,
    parts: ServerParts,
    out: str | Path | None,
    resume: bool,
    on_round: Callable[[RoundRow], None] | None,
) -> Run:
    with folders.held(experiment, out, resume) as target:
        progress = session(parts, experiment, target)
        for totals in progress.rounds():
            if on_round is not None:
                on_round(totals)
        _finish(target, experiment, parts, progress)
    return Run(target)


def plan(experiment: Experiment | None = None, pilot: int | None = None) -> Costs:
    """Return what an experiment will cost, before anything trains; a run's are ``run.costs``.

    With ``pilot`` so many rounds are really trained, and counted. Raises UserError as a run would.
    """
    from airtune.planning.rehearsal import rehearse, rounds_of

    described = experiment or Experiment()
    return Costs.of(rehearse(described, pilot or rounds_of(described), bool(pilot)))


def load(path: str | Path) -> Run:
    """Read a run directory back."""
    return Run(path)


def write_report(runs: Sequence[Run], path: str | Path) -> None:
    """Write one self-contained HTML file about one run or several compared."""
    from airtune.report import html  # plotly takes its time, and a run needs it at the end only

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: '{path}' cannot be written ({error.strerror}).") from error
    html.write_report([each.view() for each in runs], Path(path))


def export(source: Run, to: str | Path, client: str | None = None) -> Path:
    """Write a run's adapter, a folder that others load without airtune, to a new place.

    With ``client`` it is that client's own: what is shared, and what never left it.
    """
    adapter, target = source.path / "adapter", Path(to)
    if not adapter.is_dir():
        raise unfinished(source.path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to: '{target}' exists and is not an empty directory; name a new one.")
    try:
        if client is None:
            shutil.copytree(adapter, target, dirs_exist_ok=True)
        else:
            _export_personal(source, client, target)
    except OSError as error:
        raise UserError(f"--to: '{target}' cannot be written ({error}).") from error
    return target


def keeps_nothing(source: Run, exported: Path) -> bool:
    """Return whether a client's exported model is the server's: its method personalises nothing."""
    shared = {
        file.name: file.read_bytes() for file in (source.path / "adapter").glob("*.safetensors")
    }
    return shared == {file.name: file.read_bytes() for file in exported.glob("*.safetensors")}


def _export_personal(source: Run, client: str, target: Path) -> None:
    """Write the adapter that a client would use after the last round."""
    if run_name(source.path / "checkpoint" / "clients") is not None:
        raise UserError(
            "--client: the clients of this run are devices, which keep their own models; leave "
            "--client out for the server's."
        )
    parts = build(source.experiment)
    names = [parts.shares.name(index) for index in range(len(parts.shares))]
    if client not in names:
        raise UserError(f"--client: there is no client '{client}'; {nearest(client, names)}")
    index = names.index(client)
    own = personal_adapter(source.path, parts.method, parts.clients, index)
    run = source.experiment
    about = f"It is the own model of client {client} in the run '{run.name}' of {run.method.name}."
    write_adapter(parts.clients.kind(index).learner.model, own, parts.table.classes, target, about)


def _finish(target: Path, experiment: Experiment, parts: ServerParts, progress: Session) -> None:
    unfinished, adapter = target / "adapter.tmp", target / "adapter"
    shutil.rmtree(unfinished, ignore_errors=True)
    about = (
        f"It is the server's model at the end of the run '{experiment.name}' of "
        f"{experiment.method.name}; tensors that stayed at clients are as they began."
    )
    write_adapter(parts.model, progress.adapter, parts.table.classes, unfinished, about)
    shutil.rmtree(adapter, ignore_errors=True)
    unfinished.rename(adapter)
    for name, content in progress.files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    summary = _summarise(target, experiment, parts, progress)
    folders.write(target / "summary.json", json.dumps(plain(summary), indent=2) + "\n")
    write_report([Run(target)], target / "report.html")


def _summarise(
    target: Path, experiment: Experiment, parts: ServerParts, progress: Session
) -> dict[str, Any]:
    history = Run(target).history
    last = history.iloc[-1]
    causal = parts.table.task == "causal"
    return {
        "name": experiment.name,
        "method": experiment.method.name,
        "model": parts.backbone.name,
        "task": parts.table.task,
        "rounds": int(last["round"]),
        "clients": experiment.clients.count,
        "accuracy": float(last["accuracy"]),
        "scores": progress.scores,
        "best_accuracy": float(history["accuracy"].max()),
        "personal_accuracy": float(last["personal_accuracy"]),
        "personal_loss": float(last["personal_loss"]),
        "personal_global_accuracy": float(last["personal_global_accuracy"]),
        "personal_accuracies": _named(parts, _accuracies(progress.personal)),
        "personal_accuracies_untrained": _named(parts, _accuracies(progress.untrained)),
        "personal_scores": _named(parts, progress.personal),
        "personal_scores_untrained": _named(parts, progress.untrained),
        "facts": progress.facts,
        "loss": float(last["loss"]),
        "perplexity": float(last["perplexity"]) if causal else None,
        "uplink_bits": int(last["total_uplink_bits"]),
        "downlink_bits": int(last["total_downlink_bits"]),
        "seconds": float(last["total_seconds"]),
        "joules": float(last["total_joules"]),
        "measured": experiment.cell.measured,
        "delivered": int(history["delivered"].sum()),
        "asked": int(history["asked"].sum()),
        "payload_bits": parts.method.dense_bits,
        "travels": "logits" if parts.method.own_models else "parameters",
        "trained_parameters": sum(t.numel() for t in parts.model.initial.values()),
        "shared_parameters": sum(
            t.numel() for n, t in parts.model.initial.items() if parts.method.is_shared(n)
        ),
        "parameters": parts.backbone.parameters,
        "wall_seconds": round(progress.wall_seconds, 2),
        "seed": experiment.seed,
        "versions": experiment.versions,
    }


def _accuracies(personal: Personal) -> dict[int, float]:
    return {client: own["accuracy"] for client, own in personal.items() if "accuracy" in own}


def _named(parts: ServerParts, by_client: Mapping[int, Any]) -> dict[str, Any]:
    return {parts.shares.name(client): value for client, value in by_client.items()}
