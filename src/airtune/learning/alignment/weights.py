"""How much each of two objectives counts: a weight g per client for the direction g u + (1 - g) v.

u and v are the gradients of the two losses. Weights need no more of them than four products, which
are summed in double precision over pieces of fixed size: one order for any number of slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_PIECE = 512


@dataclass(frozen=True)
class Products:
    """What two gradients say of one another, each [slots], in double precision."""

    first: Tensor  # ||u||^2
    second: Tensor  # ||v||^2
    gap: Tensor  # ||u - v||^2
    towards: Tensor  # (v - u) . v


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Products:
    """Return the products of gradients u and v that lie in blocks, each [slots, width]."""
    slots, device = len(first[0]), first[0].device
    sums = torch.zeros(4, slots, dtype=torch.float64, device=device)
    for u, v in zip(first, second, strict=True):
        # The gap is summed from differences: as uu - 2 uv + vv it would cancel where u nears v.
        apart = v - u
        for row, (a, b) in enumerate(((u, u), (v, v), (apart, apart), (apart, v))):
            sums[row] += _dot(a, b)
    return Products(*sums)


def min_norm(products: Products) -> Tensor:
    """Return MGDA's weight of two objectives, [slots]: the g in [0, 1] of the shortest direction.

    ``g = clip(((v - u) . v) / ||u - v||^2, 0, 1)`` (Sener and Koltun 2018, algorithm 1; FOUND).
    Where u = v all directions are the same, and g is 1/2 (DERIVED).
    """
    half = torch.full_like(products.gap, 0.5)
    return _clipped(products.towards, products.gap, half)


def anchored(products: Products, preference: Tensor, kappa: float) -> Tensor:
    """Return the weight that minimises ``||g u + (1-g) v||^2 + k (g - a)^2`` in [0, 1], [slots].

    ``g = clip(((v - u) . v + k a) / (||u - v||^2 + k), 0, 1)`` (DERIVED), a the client's
    ``preference`` [slots]. k is ``kappa`` times the mean of ||u||^2 and ||v||^2 (ours), so that g
    does not depend on the scale of the losses. Where nothing decides g is a.
    """
    strength = kappa * 0.5 * (products.first + products.second)
    own = preference.to(products.gap)
    return _clipped(products.towards + strength * own, products.gap + strength, own)


def squared_length(products: Products, weight: Tensor) -> Tensor:
    """Return ``||g u + (1 - g) v||^2`` of weights g [slots], [slots], in double precision."""
    g = weight.to(products.gap)
    # By the parallelogram law, which needs no further product.
    return g * products.first + (1 - g) * products.second - g * (1 - g) * products.gap


def _clipped(above: Tensor, below: Tensor, otherwise: Tensor) -> Tensor:
    """Return above / below in [0, 1], ``otherwise`` where below is zero; in single precision."""
    decided = below > 0
    ratio = above / torch.where(decided, below, torch.ones_like(below))
    return torch.where(decided, ratio.clamp(0.0, 1.0), otherwise).float()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    terms = a.double() * b.double()
    width = -(-terms.shape[1] // _PIECE) * _PIECE
    terms = functional.pad(terms, (0, width - terms.shape[1]))
    return terms.view(len(terms), -1, _PIECE).sum(2).sum(1)
