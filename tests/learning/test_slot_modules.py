"""A norm with slots is the norm of each slot, and only norms are taken for one."""

import pytest
import torch
from torch import nn

from airtune.learning.slot_modules import ActiveSlots, SlotNorm, slot_module


class Scale(nn.Module):
    """Like a norm, but its weights count twice."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * self.weight**2


def norms():
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    return [
        nn.LayerNorm(8, eps=1e-12),
        nn.LayerNorm(8, bias=False),
        LlamaRMSNorm(8),
        Gemma2RMSNorm(8),
    ]


@pytest.mark.parametrize("norm", norms(), ids=lambda norm: type(norm).__name__)
def test_a_norm_with_slots_is_the_norm_of_each_slot(norm):
    draw = torch.Generator().manual_seed(0)
    slotted = slot_module(norm, ActiveSlots(), whole=True)
    assert isinstance(slotted, SlotNorm)
    x = torch.randn(6, 5, 8, generator=draw)
    given = {n: torch.randn(3, 8, generator=draw) for n, _ in norm.named_parameters()}
    inputs = x.clone().requires_grad_()
    for name, value in given.items():
        setattr(slotted, name, nn.Parameter(value.clone()))
    y = slotted(inputs)
    (y**3).sum().backward()
    for slot in range(3):
        for name, value in given.items():
            setattr(norm, name, nn.Parameter(value[slot].clone()))
        own = x[2 * slot : 2 * slot + 2].clone().requires_grad_()
        expected = norm(own)
        (expected**3).sum().backward()
        assert torch.allclose(y[2 * slot : 2 * slot + 2], expected, atol=1e-5)
        assert torch.allclose(inputs.grad[2 * slot : 2 * slot + 2], own.grad, atol=1e-3, rtol=1e-4)
        for name in given:
            assert torch.allclose(
                getattr(slotted, name).grad[slot], getattr(norm, name).grad, atol=1e-3, rtol=1e-4
            )


def test_what_is_no_norm_has_no_slots():
    for module in (Scale(), nn.BatchNorm1d(8), nn.Embedding(4, 8), nn.PReLU(8), nn.Conv1d(8, 8, 1)):
        assert slot_module(module.eval(), ActiveSlots(), whole=True) is None
    assert slot_module(nn.LayerNorm(8), ActiveSlots()) is None
