"""The choice of a round's clients: one rule for all methods, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from airtune.radio.cell import Links
from airtune.radio.config import CellConfig
from airtune.radio.rate import in_outage, rate_bps
from airtune.radio.units import Floats, Ints
from airtune.scheduling import selection
from airtune.scheduling.deadline import out_of_reach
from airtune.scheduling.plan import Plan

Rule = Literal["random", "round-robin", "best-channel", "proportional-fair", "deadline-feasible"]
# Maps clients [n] to the bits that they mean to send, the least that is of use, and their planned
# seconds of computing, each [n] or one for all.
Needs = Callable[[Ints], tuple[ArrayLike, ArrayLike, ArrayLike]]


@dataclass(frozen=True)
class Chosen:
    """Who is asked, sorted, and who would be and cannot, with reasons."""

    clients: Ints
    skipped: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Selector:
    """Asks ``count`` clients a round by ``rule``; links are judged as the server believes them.

    Only proportional-fair remembers anything: ``average`` [clients], the rates in bit/s that
    clients had over about ``memory_rounds`` rounds. It is given and returned, never kept.
    """

    rule: Rule
    count: int
    memory_rounds: float
    cell: CellConfig
    seed: int

    def choose(self, links: Links, needs: Needs, average: ArrayLike | None = None) -> Chosen:
        """Return a round's clients; ``average`` is None before the first round."""
        population, count, round = len(links), self.count, links.round
        if self.rule == "round-robin":
            return Chosen(selection.choose_in_turn(population, count, round))
        if self.rule == "best-channel":
            return Chosen(selection.choose_best(links.planned_snr_hz, count))
        if self.rule == "proportional-fair":
            had = np.zeros(population) if average is None else np.asarray(average)
            rate = self._rate(links)
            return Chosen(selection.choose_proportionally_fair(rate, had, count))
        if self.rule == "deadline-feasible":
            return self._feasible(links, needs)
        return Chosen(selection.choose_randomly(population, count, self.seed, round))

    def after(self, average: ArrayLike | None, links: Links, plan: Plan) -> Floats | None:
        """Return the averages after a round with this plan; None for rules without a memory.

        Whoever had a grant was served, whether or not the upload arrived: the spectrum was theirs.
        """
        if self.rule != "proportional-fair":
            return None
        served = np.zeros(len(links), dtype=np.bool_)
        served[list(plan.grants)] = True
        had = np.zeros(len(links)) if average is None else np.asarray(average)
        return selection.average_rates(had, self._rate(links), served, self.memory_rounds)

    def _rate(self, links: Links) -> Floats:
        """Return what each link carries with an equal part of the band, 0 in outage."""
        snr_hz = links.planned_snr_hz
        share = self.cell.bandwidth_hz / min(self.count, len(links))
        rate = rate_bps(share, snr_hz, self.cell.rate)
        return np.where(in_outage(snr_hz, self.cell.rate), 0.0, rate)

    def _feasible(self, links: Links, needs: Needs) -> Chosen:
        """Return some of those who meet the deadline with the whole band, and who fail to."""
        everybody = np.arange(len(links))
        _, smallest, compute = (
            np.broadcast_to(np.asarray(each, dtype=np.float64), everybody.shape)
            for each in needs(everybody)
        )
        failing = out_of_reach(links, everybody, smallest, compute, self.cell)
        feasible = np.ones(len(links), dtype=np.bool_)
        feasible[list(failing)] = False
        chosen, unable = selection.choose_feasible(feasible, self.count, self.seed, links.round)
        return Chosen(chosen, {int(client): failing[int(client)] for client in unable})
