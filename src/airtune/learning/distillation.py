"""Learning what somebody else knows of public texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from airtune.learning.phase import Pass
from airtune.learning.projections import Taps


@dataclass(frozen=True)
class Distillation:
    """Objective: learn what is known of public texts (spec 2.6; both terms KL: FOUND-S).

    ``tau^2 KL(softmax(K / tau) || softmax(model / tau))`` over the known entries, the model's
    renormalised among them; over all entries if a rest value is known. Plus ``weight`` times the
    mean over taps of KL between softmaxes over the rank of the projections; these are first turned
    by a constant "rotation" [taps, rank, rank] into the model's own basis if there is one.
    Predictions of which nothing is known take no part. Only the first ``width`` logits count: some
    families pad their vocabularies to unequal sizes.
    """

    temperature: float
    weight: float = 0.0
    taps: Taps | None = None
    projection_temperature: float = 1.0
    width: int | None = None

    def __call__(self, step: Pass) -> Tensor:
        """Return one loss per slot, [slots]."""
        if self.taps is None or "teacher_projections" not in step.batch:
            return self._of_logits(step, step.logits())
        logits, own = step.logits_and_projections(self.taps)
        target = step.batch["teacher_projections"]
        known = ~target.isnan().any(-1)
        if "rotation" in step.constants:
            rotation = step.constants["rotation"].unsqueeze(1)
            target = target.view(step.slots, -1, *target.shape[1:]).unsqueeze(-2) @ rotation
            target = target.reshape(own.shape)
            known = ~target.isnan().any(-1)
        tau = self.projection_temperature
        wanted = functional.log_softmax(target.nan_to_num() / tau, dim=-1)
        got = functional.log_softmax(own / tau, dim=-1)
        gap = (wanted.exp() * (wanted - got)).sum(-1)
        return self._of_logits(step, logits) + self.weight * _mean(gap, known, step.slots)

    def _of_logits(self, step: Pass, logits: Tensor) -> Tensor:
        values, index = step.batch["teacher_values"], step.batch["teacher_index"]
        known = torch.isfinite(values)
        scaled = logits[..., : self.width].float() / self.temperature
        own = scaled.gather(-1, index)
        if "teacher_rest" in step.batch:
            total = torch.logsumexp(scaled, dim=-1, keepdim=True)
            divergence = self._over_all(
                step.batch["teacher_rest"], values, own - total, scaled, total
            )
        else:
            lowest = torch.finfo(own.dtype).min
            wanted = functional.log_softmax(
                (values / self.temperature).masked_fill(~known, lowest), -1
            )
            got = functional.log_softmax(own.masked_fill(~known, lowest), dim=-1)
            divergence = (wanted.exp() * (wanted - got)).masked_fill(~known, 0.0).sum(-1)
        return self.temperature**2 * _mean(divergence, known.any(-1), step.slots)

    def _over_all(
        self, rest: Tensor, values: Tensor, got: Tensor, scaled: Tensor, total: Tensor
    ) -> Tensor:
        """Return KL over all entries, those not listed having the value ``rest``."""
        known = torch.isfinite(values)
        width = scaled.shape[-1]
        others = width - known.sum(-1)
        floor = rest.nan_to_num(neginf=0.0) / self.temperature
        listed = (values / self.temperature).masked_fill(~known, -torch.inf)
        bulk = torch.where(others > 0, floor + others.clamp(min=1).log(), -torch.inf)
        norm = torch.logsumexp(torch.cat([listed, bulk.unsqueeze(-1)], dim=-1), dim=-1)
        wanted = listed - norm.unsqueeze(-1)
        inner = (wanted.exp() * (wanted.masked_fill(~known, 0.0) - got)).masked_fill(~known, 0.0)
        left = scaled.sum(-1) - width * total.squeeze(-1) - got.masked_fill(~known, 0.0).sum(-1)
        # Where all are listed this is not counted, and must not overflow on the way back either.
        share = torch.where(others > 0, floor - norm, torch.zeros_like(norm))
        outer = share.exp() * (others * share - left)
        return inner.sum(-1) + torch.where(others > 0, outer, torch.zeros_like(outer))


def _mean(each: Tensor, counted: Tensor, slots: int) -> Tensor:
    """Return each slot's mean over what is counted, [slots]; 0 where nothing is."""
    weight = counted.to(each.dtype).reshape(slots, -1)
    total = (each.masked_fill(~counted, 0.0)).reshape(slots, -1).sum(1)
    return total / weight.sum(1).clamp(min=1.0)
