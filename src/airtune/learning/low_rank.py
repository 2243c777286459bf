"""Algebra of low-rank products B A without forming them.

A matrix of LoRA is ``B A`` with ``A`` [rank, d_in] and ``B`` [d_out, rank]. Its component i is the
rank-one piece ``b_i a_i`` of column i of B and row i of A. Everything here costs
O(rank^2 (d_in + d_out)); a sum over clients has the sum of their ranks, and where that exceeds a
width nothing is saved over forming the product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_A, _B = ".lora_A.weight", ".lora_B.weight"


class Factors(NamedTuple):
    """``a`` [rank, d_in] and ``b`` [d_out, rank] of one product ``b a``."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.a)

    def take(self, components: Tensor) -> Factors:
        """Return only these components."""
        return Factors(self.a[components], self.b[:, components])

    def double(self) -> Factors:
        """Return the factors in double precision."""
        return Factors(self.a.double(), self.b.double())


def matrices(names: Iterable[str]) -> list[str]:
    """Return the adapted matrices among an adapter's tensor names, in their order."""
    listed = list(names)
    known = set(listed)
    found = [name.removesuffix(_A) for name in listed if name.endswith(_A)]
    return [matrix for matrix in found if matrix + _B in known]


def factor_names(matrix: str) -> tuple[str, str]:
    """Return the names of A and B."""
    return matrix + _A, matrix + _B


def factors(adapter: Mapping[str, Tensor], matrix: str) -> Factors:
    """Return one matrix's factors."""
    a, b = factor_names(matrix)
    return Factors(adapter[a], adapter[b])


def stacked(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """Return ``sum_n w_n B_n A_n`` as one product, of the sum of the ranks; exact."""
    return Factors(
        torch.cat([each.a for _, each in parts]),
        torch.cat([weight * each.b for weight, each in parts], dim=1),
    )


def difference(new: Factors, old: Factors) -> Factors:
    """Return ``B' A' - B A`` as one product."""
    return stacked([(1.0, new), (-1.0, old)])


def squared_norm(product: Factors) -> float:
    """Return ``||B A||_F^2 = sum_ij (b_i . b_j)(a_i . a_j)``."""
    a, b = product.double()
    return max(float(((a @ a.mT) * (b.mT @ b)).sum()), 0.0)


def importance(product: Factors) -> Tensor:
    """Return each component's norm ``||b_i|| ||a_i||``, [rank]: SOFT's score from norms alone.

    With orthogonal rows of A or columns of B the squares of dropped components add up to the
    squared error; without orthogonality they say little.
    """
    a, b = product.double()
    return a.norm(dim=1) * b.norm(dim=0)


def change(new: Factors, old: Factors) -> Tensor:
    """Return the norm of each component's change, ``||b'_i a'_i - b_i a_i||_F``, [rank]; exact."""
    a1, b1 = new.double()
    a0, b0 = old.double()
    squares = (a1 * a1).sum(1) * (b1 * b1).sum(0) + (a0 * a0).sum(1) * (b0 * b0).sum(0)
    crossed = (a1 * a0).sum(1) * (b1 * b0).sum(0)
    return (squares - 2.0 * crossed).clamp(min=0.0).sqrt()


def truncated(product: Factors, rank: int) -> Factors:
    """Return the best product of ``rank`` in the Frobenius norm, by singular value decomposition.

    Rows of A are orthonormal, and columns of B have the singular values as lengths, descending.
    Goes through QR of the factors: exact, and no matrix of d_out x d_in is formed. Where fewer
    components exist, zeros fill both factors.
    """
    a, b = product.double()
    q_out, r_out = torch.linalg.qr(b)
    q_in, r_in = torch.linalg.qr(a.mT)
    u, values, v = torch.linalg.svd(r_out @ r_in.mT, full_matrices=False)
    count = min(rank, len(values))
    best_a, best_b = a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)
    best_a[:count] = v[:count] @ q_in.mT
    best_b[:, :count] = q_out @ (u[:, :count] * values[:count])
    return Factors(best_a.to(product.a.dtype), best_b.to(product.b.dtype))


def decomposed(matrix: Tensor, rank: int | None = None) -> Factors:
    """Return the best product of ``rank`` for a matrix [d_out, d_in] in the Frobenius norm.

    Singular values are divided evenly between the factors, so that numbers of both have a size
    that 16 bits hold. Without ``rank``: as many components as differ from rounding errors.
    """
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    if rank is None:
        rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps
        rank = int((values > rounding * values.max()).sum())
    roots = values[:rank].sqrt()
    best = Factors(roots[:, None] * v[:rank], u[:, :rank] * roots)
    return Factors(best.a.to(matrix.dtype), best.b.to(matrix.dtype))


def singular_values(product: Factors) -> Tensor:
    """Return the singular values of ``B A``, [min(rank, d_in, d_out)], descending; through QR."""
    a, b = product.double()
    _, r_out = torch.linalg.qr(b)
    _, r_in = torch.linalg.qr(a.mT)
    values: Tensor = torch.linalg.svdvals(r_out @ r_in.mT)
    return values


def mean(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """Return means apart, ``sum_n w_n A_n`` and ``sum_n w_n B_n``; weights sum to 1."""
    return Factors(
        torch.stack([weight * each.a for weight, each in parts]).sum(0),
        torch.stack([weight * each.b for weight, each in parts]).sum(0),
    )


def covariance(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """Return ``sum_n w_n (B_n - mean B)(A_n - mean A)`` as one product; weights sum to 1.

    It is what averaging A and B apart leaves out:
    ``sum_n w_n B_n A_n = mean B mean A + covariance`` (DERIVED+ in the specification).
    """
    middle = mean(parts)
    return stacked(
        [(weight, Factors(each.a - middle.a, each.b - middle.b)) for weight, each in parts]
    )


def off_diagonal(rows: Tensor) -> Tensor:
    """Return ``||G - Diag(G)||_F^2`` of the Gram matrices G of ``rows`` [..., rank, d], [...]."""
    gram = rows @ rows.mT
    return (gram * gram).sum((-2, -1)) - (gram.diagonal(dim1=-2, dim2=-1) ** 2).sum(-1)


def off_identity(rows: Tensor) -> Tensor:
    """Return ``||G - I||_F^2`` of the Gram matrices G of ``rows`` [..., rank, d], [...]."""
    gram = rows @ rows.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return ((gram - identity) ** 2).sum((-2, -1))
