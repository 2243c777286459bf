"""The mean of tensors that arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airtune.methods.views import Delivery

if TYPE_CHECKING:  # peft and transformers take seconds to import
    from airtune.learning.adapter import Adapter


def weighted_mean(deliveries: Sequence[Delivery]) -> Adapter:
    """Return ``sum_n w_n theta_n / sum_n w_n`` of what arrived, each tensor over its senders."""
    totals: dict[str, float] = {}
    for delivery in deliveries:
        for name in delivery.payload.tensors:
            totals[name] = totals.get(name, 0.0) + delivery.weight
    mean: Adapter = {}
    for delivery in deliveries:
        for name, tensor in delivery.payload.tensors.items():
            part = tensor * (delivery.weight / totals[name])
            mean[name] = mean[name] + part if name in mean else part
    return mean
