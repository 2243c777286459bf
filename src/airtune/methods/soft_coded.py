"""SOFT with few bits: the largest changes on a coarse grid, coded, and the rest is owed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Option
from torch import Tensor

from airtune.methods.method import MethodConfig, check_size
from airtune.methods.scheduled import ScheduledConfig, ScheduledLora, shares
from airtune.methods.views import Client, State
from airtune.radio.grant import Grant
from airtune.scheduling.latency import Pieces
from airtune.wire import CodedChanges, Grid, Payload, WireError, coded_bits, encode

_PIECES = 16  # of equal size, that the scheduler grants
_CODER_BITS = 64  # by which messages of one number differ
_ROOM = 1.3  # for changes with longer tails than normal ones
_RATIO = 2.0**-0.25  # of a number of values to the next larger one that is tried


class SoftCodedConfig(ScheduledConfig):
    """Options of coded SOFT."""

    orthogonality: float = Option(0.0, ge=0, description="mu, weight of the penalty")
    error_feedback: float = Option(
        0.9, ge=0, le=1, description="share of what was not sent that is owed in the next round"
    )
    value_bits: Literal[16, 32] = Option(
        32, description="of a number that goes down, and of tensors that are sent whole"
    )
    kept_ratio: float = Option(
        0.14, ge=1e-4, le=0.9, description="rho, most of the numbers that do not become zero"
    )


class SoftCoded(ScheduledLora):
    """SOFT at a fraction of its bits (ours; nothing of it is in the paper).

    A client chooses numbers, not components: the largest of its whole change, as multiples of one
    step, which a range coder packs. ``kept_ratio`` of them stay at most, fewer until the message
    fits into the grant. What was cut and rounded away is added, times ``error_feedback``, to the
    next change; without that, little of this would be learned. It takes what was sent for arrived:
    a client does not hear of a loss.

    So bits are what the scheduler controls: an upload is pieces of equal size, and a client's score
    says how much error each further piece takes off. Unlike the norms of components these fall
    steeply, which keeps TSFA from granting all or nothing.

    Close to it: sparse ternary compression (Sattler et al. 2019, 1903.02891), which has one level.
    """

    Config: ClassVar[type[MethodConfig]] = SoftCodedConfig
    uplink_payload: ClassVar[type] = CodedChanges
    sizes_vary = True

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Send the largest numbers of the change, as many as fit."""
        started = self.started(client)
        self.keep_private(client)
        learned, before = self.with_debt(client), self.components.slices(started)
        changes = {m: rows - before[m] for m, rows in self.components.slices(learned).items()}
        flat = torch.cat([rows.reshape(-1) for rows in changes.values()])
        order = flat.abs().argsort(descending=True, stable=True)
        scores = shares(self._weighed(flat, order)) if self.pieces else None

        def message(count: int) -> CodedChanges:
            return self._coded(client.adapter, *Grid.of_largest(flat, order, count), scores)

        def fits(count: int) -> bool:
            return 8 * len(encode(message(count))) <= grant.bits

        chosen = bisect_left(self._counts, True, key=fits)
        if chosen == len(self._counts):
            client.problem = f"not one number of the adapter fits into {grant.bits:.0f} bits"
            self.owe(client, changes)
            return None
        sent = message(self._counts[chosen])
        self.owe(client, {m: rows - sent.slices[m] for m, rows in changes.items()})
        there = self.components.tensors({m: r + sent.slices[m] for m, r in before.items()})
        moved = self.components.distance(learned, started)
        left = self.components.distance(learned, {**started, **there})
        client.notes |= {
            "kept": sum(int((each != 0).sum()) for each in sent.levels.values()) / len(flat),
            "moved": math.sqrt(moved),
            "drop_error": left / moved if moved else 0.0,
        }
        return sent

    def accept(self, state: State, payload: Any) -> Any:
        """Refuse whole tensors of another width, and numbers too large to be learned ones."""
        del state
        if payload.tensors and payload.dtype != self._dtype:
            raise WireError(f"whole tensors travelled as {payload.dtype}, not {self._dtype}.")
        check_size(payload, self.largest)
        return payload

    @property
    def pieces(self) -> int:
        """How many pieces tell the scheduler what they weigh."""
        return _PIECES if self.is_weighed else 0

    @property
    def sizes(self) -> Pieces:
        """Pieces of equal size beside one number; all are more than usual changes take."""
        whole = _ROOM * self._numbers * normal_bits(self.config.kept_ratio)
        return Pieces(self.fixed_bits, np.full(_PIECES, whole / _PIECES), 1)

    @cached_property
    def fixed_bits(self) -> int:
        """Size of an upload of one number, while the coder has not seen how rare they are."""
        scores = torch.zeros(self.pieces) if self.pieces else None
        levels = torch.zeros(self._numbers, dtype=torch.int64)
        levels[-1] = 1
        return 8 * len(encode(self._coded(self.setup.initial, levels, Grid(1.0, 0.0), scores))) + (
            _CODER_BITS
        )

    @cached_property
    def dense_bits(self) -> int:
        """Size that the largest upload is not expected to exceed."""
        return int(self.sizes.whole)

    # Its parts.

    @property
    def _dtype(self) -> torch.dtype:
        """Of tensors that are sent whole."""
        return torch.float16 if self.config.value_bits == 16 else torch.float32

    @cached_property
    def _numbers(self) -> int:
        return int(self.components.widths().sum())

    @cached_property
    def _counts(self) -> list[int]:
        """How many numbers a message may have, from the most to one."""
        most = max(int(self.config.kept_ratio * self._numbers), 1)
        tried = range(1 + math.ceil(math.log(1.0 / most, _RATIO)))
        return sorted({max(round(most * _RATIO**k), 1) for k in tried}, reverse=True)

    def _weighed(self, flat: Tensor, order: Tensor) -> Tensor:
        """Return how much squared error each further piece takes off, [pieces]."""
        bits, errors = [0.0], [1.0]
        for count in reversed(self._counts[::2]):
            levels, grid = Grid.of_largest(flat, order, count)
            left = (flat - grid.values(levels)).square().sum()
            bits.append(coded_bits(levels))
            errors.append(min(float(left / flat.square().sum().clamp(min=1e-30)), errors[-1]))
        # Few distinct values may take fewer bits than fewer of them.
        rising = np.maximum.accumulate(bits)
        ends = np.cumsum(self.sizes.bits)
        return torch.from_numpy(-np.diff(np.interp(ends, rising, errors), prepend=1.0))

    def _coded(
        self, adapter: Mapping[str, Tensor], levels: Tensor, grid: Grid, scores: Tensor | None
    ) -> CodedChanges:
        """Return the message of levels [numbers] of all matrices end to end."""
        widths = {matrix: sum(parts) for matrix, parts in self.components.parts.items()}
        pieces = levels.split([self.components.rank * width for width in widths.values()])
        by_matrix = {
            matrix: piece.view(-1, width)
            for (matrix, width), piece in zip(widths.items(), pieces, strict=True)
        }
        return CodedChanges(by_matrix, grid, scores, self.whole(adapter), self._dtype)


def normal_bits(share: float) -> float:
    """Return the bits a number takes if the ``share`` largest of normal ones stay, levels coded."""
    step = -2.0 * NormalDist().inv_cdf(0.5 * share)
    edges = (np.arange(math.ceil(12.0 / step) + 1) - 0.5) * step
    chance = np.diff([NormalDist().cdf(edge) for edge in edges])
    chance = np.concatenate([chance, chance[1:]])
    chance = chance[chance > 0]
    return float(-(chance * np.log2(chance)).sum())
