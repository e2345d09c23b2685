"""Which positions count, and sums, means and whitening over those alone.

`loss_mask` is True where a position counts. `labels` carry the same information as `IGNORE_INDEX` where it does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE_INDEX = -100  # PyTorch's own default for labels that do not count
MASK_LIMIT_TOKENS = 2048  # longer rows attend without a mask, whose T^2 values are 4 million here and a thousand million at 32,768
PREFIX_SHIFT = 20  # a segment id of s + (p << PREFIX_SHIFT): these tokens also attend to segment p, which stands before them in the row


def loss_mask_of(labels: Tensor) -> Tensor:
    """labels (...) int -> (...) bool, True where the label counts."""
    return labels != IGNORE_INDEX


def masked_sum(values: Tensor, mask: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Sum of `values` (...) where `mask` (...) is True; a NaN or inf elsewhere does not leak into it.

    `values * mask` would: inf * 0 is NaN. Hence `where`.
    """
    kept = torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return kept.sum() if dim is None else kept.sum(dim=dim)


def sequence_sums(values: Tensor, start_index: Tensor) -> Tensor:
    """values (B, T) of packed rows -> (S,): the sum of each sequence's positions, in packed order.

    start_index (S,): flat position of each sequence's first token, ascending. Padding after a row's last sequence is added
    to that sequence, so values there must be 0 (log-probabilities of labels that do not count are).
    """
    flat = values.reshape(-1)
    starts = torch.zeros_like(flat, dtype=torch.int64)
    starts[start_index] = 1
    owner = starts.cumsum(0).sub(1).clamp(min=0)
    return torch.zeros(len(start_index), dtype=flat.dtype, device=flat.device).index_add(0, owner, flat)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True positions; 0 where there are none (an empty response must not turn a batch into NaN)."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1).to(values.dtype)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divided by n, not n - 1) over the True positions; 0 where there are fewer than two."""
    mean = masked_mean(values, mask)
    return masked_mean((values - mean) ** 2, mask)


def masked_whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """`(values - mean) / sqrt(variance + eps)` over the True positions, 0 elsewhere.

    Statistics over counted tokens only: padding inside them would shrink the variance and inflate every advantage
    (Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031).
    """
    white = (values - masked_mean(values, mask)) * torch.rsqrt(masked_variance(values, mask) + eps)
    return torch.where(mask, white, torch.zeros_like(white))
