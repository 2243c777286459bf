"""SOFT with TSFA: sparsified orthogonal LoRA under a budget of latency."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field as Option
from torch import Tensor

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.components import Pool
from airtune.learning.phase import Phase
from airtune.methods.method import MethodConfig
from airtune.methods.scheduled import ScheduledConfig, ScheduledLora, shares
from airtune.methods.views import Client, Setup
from airtune.radio.grant import Grant
from airtune.scheduling.latency import Pieces
from airtune.wire import Payload

if TYPE_CHECKING:
    from airtune.learning.adapter import Adapter


# Notes: the share of the squared change that the best part of the components holds.
SPECTRUM = {"top_eighth": 0.125, "top_quarter": 0.25, "top_half": 0.5, "top_three_quarters": 0.75}


class SoftConfig(ScheduledConfig):
    """Options of SOFT; symbols as in the specification."""

    score: Literal["change", "norm", "fisher", "random"] = Option(
        "change",
        description="a component's importance: norm of its change, norm, change times the size of "
        "its gradients, or chance",
    )
    pool: Pool = Option(
        "matrix", description="keep as many components of each matrix, or the best of all"
    )
    kept_ratio: float = Option(1.0, gt=0, le=1, description="rho, most that is kept of components")
    send: Literal["delta", "value"] = Option(
        "delta", description="changes of kept components, or their new values"
    )
    average: Literal["senders", "total"] = Option(
        "senders", description="Z: mean over who sent a component, or 1 (no change, or a zero)"
    )


class Soft(ScheduledLora):
    """Sparsified orthogonal LoRA, kept ratio and bandwidth by drift plus penalty (SOFT, TSFA).

    Clients train ``F + mu R``, R the off-diagonal Gram penalty, score each rank component by norms
    alone and send the slices (a_i, b_i) of those that count. TSFA grants each client bits and
    bandwidth (:mod:`airtune.scheduling.tsfa`). The server adds, component by component,
    ``sum_n p_n d_n,i / Z_i`` over those who sent it; A and B are averaged apart.

    Source: arXiv 2505.00333 (FOUND-P: separate averaging, orthogonal pull, norms only, no SVD, kept
    ratio and bandwidth by Lyapunov optimisation under a long-term latency constraint). DERIVED:
    products of norms, changes rather than values, Z, error feedback, the optimisation itself. Ours:
    what components weigh reaches the scheduler with the upload, charged, for the next round's plan;
    Z is the mean over senders (1 in the specification), which learns more from a quarter of the
    bits; error feedback takes what was sent for arrived. With ``residual`` frozen weights get what
    averaging each component's row and column apart leaves out of their product under these weights
    (:mod:`airtune.methods.residual`; named as a repair in the specification, 3.4).
    """

    Config: ClassVar[type[MethodConfig]] = SoftConfig

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError for a score of gradients without an optimiser that keeps them."""
        super().__init__(config, setup)
        if config.score == "fisher" and setup.train.optimiser == "sgd":
            raise UserError(
                "method.score: fisher takes the sizes of gradients from Adam's moments; use "
                "train.optimiser adamw, or another score."
            )

    def phases(self, client: Client) -> list[Phase]:
        """Return local training; where the score asks for moments they are kept."""
        keeps = self.config.score == "fisher"
        return [replace(phase, goes_on=keeps) for phase in super().phases(client)]

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the slices that count, as many as fit."""
        started = self.started(client)
        self.keep_private(client)
        learned = self.with_debt(client)
        squares = self.scores(client, learned, started) ** 2
        errors, ranking = self.components.ranked(squares, self.config.pool)
        count = self._fitting(ranking, grant.bits)
        if count == 0:
            client.problem = f"not one piece of the adapter fits into {grant.bits:.0f} bits"
        kept = torch.zeros(len(self.components), dtype=torch.bool)
        kept[ranking[:count].reshape(-1)] = True
        dropped, moved = self.components.errors(learned, started, kept)
        client.notes |= {
            "kept": float(kept.double().mean()),
            "moved": math.sqrt(moved),
            "drop_error": dropped / moved if moved else 0.0,
        }
        squared = self.components.changes(learned, started) ** 2
        if float(squared.sum()) > 0.0:
            held = self.components.held(squared, self.config.pool, list(SPECTRUM.values()))
            client.notes |= dict(zip(SPECTRUM, held, strict=True))
        slices, before = self.components.slices(learned), self.components.slices(started)
        changes = {matrix: rows - before[matrix] for matrix, rows in slices.items()}
        values = changes if self.config.send == "delta" else slices
        message = self.message(client, values, kept, shares(errors) if self.pieces else None)
        for matrix, there in self.components.by_matrix(kept).items():
            # Of what is sent, rounding is left.
            changes[matrix] = changes[matrix].clone()
            changes[matrix][there] = values[matrix][there] - message.slices[matrix]
        self.owe(client, changes)
        return message if count else None

    # Its parts.

    def scores(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return each component's importance, [components]."""
        if self.config.score == "change":
            return self.components.changes(learned, started)
        if self.config.score == "norm":
            return self.components.norms(learned)
        if self.config.score == "fisher":
            return self._loss_at_stake(client, learned, started)
        seed = keyed.integer(self.setup.seed, "components", client.round, client.index)
        draw = torch.Generator().manual_seed(seed)
        return torch.rand(len(self.components), generator=draw, dtype=torch.float64)

    def _loss_at_stake(self, client: Client, learned: Adapter, started: Adapter) -> Tensor:
        """Return ``sqrt(sum_j E[g_j^2] d_j^2)`` over a component's changes d, [components].

        Mean squares of gradients, which stand for Fisher's information, are those of the client's
        Adam. They serve this score only: the next round's optimiser starts anew.
        """
        squares = {name: moments[1] for name, moments in client.moments.items()}
        new, old = self.components.slices(learned), self.components.slices(started)
        sizes = self.components.slices({n: squares[n].view_as(started[n]) for n in squares})
        return torch.cat([(sizes[m] * (new[m] - old[m]) ** 2).sum(1) for m in new]).double().sqrt()

    @property
    def rule(self) -> tuple[bool, bool]:
        """Whether changes are sent, and whether a component is averaged over its senders alone."""
        return self.config.send == "delta", self.config.average == "senders"

    @property
    def pieces(self) -> int:
        """How many pieces tell the scheduler what they weigh."""
        return self.components.pieces(self.config.pool) if self.is_weighed else 0

    @property
    def sizes(self) -> Pieces:
        """What an upload is made of, for the scheduler; the fewest are one of each matrix."""
        bits, matrices = self.component_bits.double(), len(self.components.parts)
        if self.config.pool == "all":
            return Pieces(self.fixed_bits, bits.numpy(), min(matrices, self._most), self._most)
        return Pieces(self.fixed_bits, bits.view(matrices, -1).sum(0).numpy(), 1, self._most)

    @property
    def _most(self) -> int:
        """Most pieces that are kept."""
        pieces = self.components.pieces(self.config.pool)
        return math.ceil(self.config.kept_ratio * pieces - 1e-9)

    def _fitting(self, ranking: Tensor, budget: float) -> int:
        """Return how many pieces are sent within a budget of bits."""
        sizes = self.fixed_bits + self.component_bits[ranking].sum(1).cumsum(0)
        return min(int((sizes <= budget).sum()), self._most)
