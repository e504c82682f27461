"""RBF kernels: soft counts of how nearly a query's tokens are met in a text (K-NRM, Xiong et al., SIGIR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MUS = (-0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""The cosines that the kernels count, the last one equal vectors."""
SOFT, EXACT = 0.1, 0.001
"""Widths of kernels."""


def soft_counts(cosines: Tensor, there: Tensor, sigmas: Sequence[float]) -> Tensor:
    """float32 [..., query, 11]: sum_j exp(-(cosine_ij - mu)^2 / (2 sigma^2)) over the text's tokens j that are there.

    cosines: float32 [..., query, text]. there: bool, to be broadcast to their shape; what is padding counts nothing.
    sigmas: the widths, one for each of MUS.
    """
    import torch

    counts = [
        (torch.exp((cosines - mu).square() * (-0.5 / sigma**2)) * there).sum(dim=-1)
        for mu, sigma in zip(MUS, sigmas, strict=True)
    ]
    return torch.stack(counts, dim=-1)


def log_counts(counts: Tensor, there: Tensor, *, plus: float = 0.0, least: float = 0.0) -> Tensor:
    """float32 [..., 11]: sum_i log(max(count_i + plus, least)) over the query's tokens i that are there.

    counts: float32 [..., query, 11]. there: bool, to be broadcast to [..., query]. A token that is there and meets
    nothing counts as what it is, log(plus) or log(least), and not as padding, as in CEDR's code.
    """
    logs = (counts + plus).clamp(min=least).log()
    return (logs * there[..., None]).sum(dim=-2)
