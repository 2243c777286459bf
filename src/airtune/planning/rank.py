"""The offline choice of LoRA's rank under a budget of latency (stage 1 of TSFA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np

from airtune.build import Parts, build
from airtune.errors import UserError, nearest
from airtune.experiment import Experiment
from airtune.methods.scheduled import ScheduledConfig, ScheduledLora
from airtune.methods.soft import Soft
from airtune.methods.views import Work
from airtune.planning.pilot import Pilot, dense_pilot, try_budget, with_rank
from airtune.planning.proxy import load_proxy
from airtune.planning.surrogate import Seen, Terms, choose, fit, normalised
from airtune.planning.terms import tail_shares
from airtune.radio.units import Floats
from airtune.scheduling.affordable import affordable_pieces
from airtune.scheduling.expected import least_bit_seconds

By = Literal["surrogate", "pilot"]
RANKS = (1, 2, 4, 8, 16, 32)
Found = dict[str, Any]


def parse_ranks(text: str) -> list[int]:
    """Return ascending ranks written as ``1,2,4``; raise UserError for anything else."""
    ranks = set()
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit()) or int(word) == 0:
            raise UserError(
                f"--ranks: '{word}' is no rank; give whole numbers above 0, such as 1,2,4,8."
            )
        ranks.add(int(word))
    if len(ranks) < 2:
        raise UserError(f"--ranks: '{text}' leaves nothing to choose; give two ranks or more.")
    return sorted(ranks)


def parse_by(text: str) -> By:
    """Return the way of choosing of that name; raise UserError if there is none."""
    if text not in get_args(By):
        raise UserError(f"--by: there is no way '{text}'; {nearest(text, get_args(By))}")
    return cast(By, text)


def plan_rank(
    experiment: Experiment,
    ranks: Sequence[int] = RANKS,
    proxy: str | None = None,
    rounds: int = 3,
    by: By = "pilot",
    on_pilot: Callable[[int], None] | None = None,
) -> Found:
    """Return the curve over ascending ``ranks`` and the choice, as plain data.

    ``by`` pilot (ours): the least held-out loss after ``rounds`` rounds of the experiment itself on
    proxy texts, under its own cell and budget. ``by`` surrogate: ``argmin_r c2 Phi(r) +
    c3 E_sp(r, rho) + c4 Cov(r)`` of pilots that send everything (DERIVED from the bound of
    arXiv 2505.00333; the terms are FOUND-P, their estimates DERIVED, their weights ours). It sees
    what is lost in one round, not what that does to the next ones. ``on_pilot`` is
    called with each rank when its pilot begins. Raises UserError for what has no rank or budget.
    """
    _check(experiment, rounds, by)
    table, said = load_proxy(experiment, proxy)
    rows: dict[int, Found] = {}
    pilots: dict[int, Pilot] = {}
    # The largest first: it is refused where it does not fit, before any time is spent.
    for rank in sorted(ranks, reverse=True):
        described = with_rank(experiment, rank)
        parts = build(described, table)
        afford = _afford(parts, described)
        rows[rank] = {"rank": rank, **_kept(parts, afford, rank)}
        if on_pilot is not None:
            on_pilot(rank)
        if by == "pilot":
            rows[rank] |= _tried(parts, rounds)
        else:
            pilots[rank] = dense_pilot(described, table, rounds, afford)
    weighed = _weigh(ranks, pilots, rows) if by == "surrogate" else {}
    cost = "u" if by == "surrogate" else "loss"
    chosen = choose(ranks, [rows[rank][cost] for rank in ranks])
    alpha = experiment.adapter.alpha / experiment.adapter.rank * chosen
    return {
        "by": by,
        "chosen": chosen,
        "alpha": int(alpha) if alpha.is_integer() else alpha,
        "latency_s": experiment.method.latency_s,
        "rounds": rounds,
        "proxy": said,
        "clients": experiment.clients.count,
        **weighed,
        "ranks": [rows[rank] for rank in ranks],
    }


def _check(experiment: Experiment, rounds: int, by: By) -> None:
    """Refuse what has no rank, and what no budget divides."""
    if rounds < 1:
        raise UserError(f"--rounds: {rounds} is no number of pilot rounds; give 1 or more.")
    if not experiment.adapter.has_lora:
        raise UserError(
            f"adapter.kind: {experiment.adapter.kind} has no rank; use lora, or leave --rank out."
        )
    method = experiment.method
    if not isinstance(method, ScheduledConfig):
        raise UserError(
            f"method.name: ranks are chosen for soft and soft_coded only so far, not for "
            f"'{method.name}'; use method.name=soft with method.latency_s (seconds of computing "
            "and sending a round) and a method.control other than none."
        )
    if by == "surrogate" and method.name != "soft":
        raise UserError(
            f"--by: the surrogate counts dropped components, and {method.name} drops none; use "
            "--by pilot."
        )
    if method.control == "none":
        raise UserError(
            "method.control: none keeps to no budget of latency, under which ranks differ; use "
            "tsfa, or another control."
        )
    if experiment.cell.ideal:
        raise UserError(
            "cell.ideal: nothing takes time in an ideal cell, so any rank meets method.latency_s; "
            "describe a cell, such as cell.preset=urban-micro."
        )


def _afford(parts: Parts, experiment: Experiment) -> Floats:
    """Return mean numbers of pieces per upload on average links, [clients]; NaN for none."""
    method, config = cast(ScheduledLora, parts.method), experiment.method
    links = parts.cell.links(1)
    clients = np.arange(len(links))
    seconds = method.setup.compute_seconds(clients, Work(experiment.train.local_steps))
    statistical = experiment.cell.csi == "statistical"
    snr_hz = links.planned_snr_hz if statistical else links.mean_snr_hz
    least = least_bit_seconds(experiment.cell, links, clients)
    budget, asked = config.latency_s, method.setup.per_round
    pieces, cell = method.scheduler.pieces, experiment.cell
    return affordable_pieces(pieces, snr_hz, least, seconds, budget, cell, asked)


def _kept(parts: Parts, afford: Floats, rank: int) -> Found:
    """Return the kept part of an upload, a mean over who can meet the budget at all.

    ``slices`` are components of that part, of a method that drops components.
    """
    method, able = cast(ScheduledLora, parts.method), ~np.isnan(afford)
    mean = np.average(afford[able], weights=method.setup.examples[able])
    kept = mean / len(method.scheduler.pieces.bits)
    slices = {"slices": float(kept * rank)} if isinstance(method, Soft) else {}
    return {**slices, "kept": float(kept), "clients": int(able.sum())}


def _tried(parts: Parts, rounds: int) -> Found:
    trial = try_budget(parts, rounds)
    return {
        "start_loss": trial.start.loss,
        "loss": trial.end.loss,
        "accuracy": trial.end.accuracy,
        "uplink_bits": trial.uplink_bits,
        "mean_latency_s": trial.latency_s,
    }


def _weigh(ranks: Sequence[int], pilots: dict[int, Pilot], rows: dict[int, Found]) -> Found:
    """Write terms and U into the rows; return the weights."""
    phis = dict(zip(ranks, tail_shares(pilots[max(ranks)].changes, ranks), strict=True))
    terms = [pilots[rank].mean(phis[rank]) for rank in ranks]
    weights = fit(_seen(pilots, phis)) or normalised(ranks, terms)
    for rank, each in zip(ranks, terms, strict=True):
        own = pilots[rank].rounds
        losses = [own[0].before, *(r.after for r in own)]
        rows[rank] |= {**each._asdict(), "u": weights.value(each), "dense_losses": losses}
    return {"weights": weights.c._asdict(), "weighting": weights.how}


def _seen(pilots: dict[int, Pilot], phis: dict[int, float]) -> list[Seen]:
    """Return two equations for each rank and round: all sent, and what the budget affords."""
    seen = []
    for rank, pilot in pilots.items():
        for number, each in enumerate(pilot.rounds):
            full = Terms(phis[rank], 0.0, each.covariance)
            seen.append(Seen(number, each.before - each.after, full))
            if each.thin is not None:
                thin = Terms(phis[rank], each.thin_dropped, each.covariance)
                seen.append(Seen(number, each.before - each.thin, thin))
    return seen
