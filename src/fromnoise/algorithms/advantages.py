"""From scores to what each token of an answer is credited with.

Shapes: answers are padded on the right to (S, L); `mask` (S, L) is True at an answer's tokens, its stop token
included. Index t of log-probabilities, values, rewards, advantages and returns speaks of the answer's t-th token:
`values[:, t]` is the critic's estimate before that token is chosen.

`pack` and `unpack` carry such tensors to and from packed rows (B, T); they are exact inverses on the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.algorithms.logprobs import kl_estimates


def answer_mask(lengths: Tensor, width: int | None = None) -> Tensor:
    """lengths (S,) int -> (S, width) bool, True at the first `length` positions. An empty answer has none."""
    width = int(lengths.max()) if width is None and len(lengths) else (width or 0)
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def unpack(packed: Tensor, first_index: Tensor, mask: Tensor) -> Tensor:
    """packed (B, T) -> (S, L): row s holds the flat positions first_index[s], first_index[s] + 1, ...; 0 off the mask.

    first_index (S,) is the flat position b * T + t whose label is the answer's first token.
    """
    index = first_index[:, None] + torch.arange(mask.shape[1], device=packed.device)[None, :]
    picked = packed.reshape(-1)[index.clamp(max=packed.numel() - 1)]
    return torch.where(mask, picked, torch.zeros_like(picked))


def pack(padded: Tensor, first_index: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """padded (S, L) -> (B, T) = `shape`, the inverse of `unpack`; 0 wherever no answer token is predicted."""
    index = first_index[:, None] + torch.arange(mask.shape[1], device=padded.device)[None, :]
    packed = torch.zeros(shape[0] * shape[1], dtype=padded.dtype, device=padded.device)
    packed[index[mask]] = padded[mask]
    return packed.reshape(shape)


def kl_shaped_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """(S, L) rewards: -kl_coef * (log pi - log ref) at every token, plus the score (S,) at each answer's last token.

    Ziegler et al. 2019 (arXiv 1909.08593), equation 2, with the k1 estimate, which is unbiased, inside the reward.
    An empty answer has no token to credit and receives nothing.
    """
    k1, _, _ = kl_estimates(logprobs, ref_logprobs)
    rewards = torch.where(mask, -kl_coef * k1, torch.zeros_like(k1))
    lengths = mask.sum(dim=1)
    present = torch.nonzero(lengths > 0, as_tuple=True)[0]
    rewards[present, lengths[present] - 1] += scores[present].to(rewards.dtype)
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation. All (S, L); returns (advantages, returns), 0 off the mask.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum_l (gamma lambda)^l delta_{t+l}, returns = A + V; the value after an
    answer's last token is 0, stopped or cut, because an answer is the whole episode.
    Schulman et al. 2015 (arXiv 1506.02438), equation 16.
    """
    values = torch.where(mask, values, torch.zeros_like(values))
    rewards = torch.where(mask, rewards, torch.zeros_like(rewards))
    advantages = torch.zeros_like(values)
    later = torch.zeros_like(values[:, 0]) if values.shape[1] else None
    for t in range(values.shape[1] - 1, -1, -1):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(values[:, t])
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # off the mask delta is V_{t+1} - 0: zero, or the first answer value seen from padding, which cannot precede it
        later = torch.where(mask[:, t], delta + gamma * gae_lambda * later, torch.zeros_like(delta))
        advantages[:, t] = later
    return advantages, advantages + values


def group_relative(scores: Tensor, present: Tensor | None = None, divide_by_std: bool = False, eps: float = 1e-6) -> Tensor:
    """(P, G) scores of G answers a prompt -> advantages, score minus the group's mean; they sum to 0 in each group.

    present (P, G) bool leaves an answer (an empty one) out of its group's mean and gives it 0.
    `divide_by_std` is GRPO as published (arXiv 2402.03300, section 4.1.2); without it, Dr. GRPO (arXiv 2503.20783).
    """
    present = torch.ones_like(scores, dtype=torch.bool) if present is None else present
    count = present.sum(dim=1, keepdim=True).clamp(min=1).to(scores.dtype)
    kept = torch.where(present, scores, torch.zeros_like(scores))
    centred = torch.where(present, scores - kept.sum(dim=1, keepdim=True) / count, torch.zeros_like(scores))
    if divide_by_std:
        centred = centred / ((centred**2).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt().add(eps)
    return centred


def leave_one_out(scores: Tensor, present: Tensor | None = None) -> Tensor:
    """RLOO: (P, G) scores minus the mean of the others of the group (Ahmadian et al. 2024, arXiv 2402.14740).

    Equals group_relative times G / (G - 1): an unbiased baseline, since no answer is in its own. present (P, G) bool
    leaves an answer (an empty one) out; one that is alone in its group gets 0.
    """
    if scores.shape[1] < 2:
        raise ValueError(f"leave-one-out needs at least two answers a prompt, got {scores.shape[1]}")
    present = torch.ones_like(scores, dtype=torch.bool) if present is None else present
    count = present.sum(dim=1, keepdim=True).to(scores.dtype)
    return group_relative(scores, present) * torch.where(count > 1, count / (count - 1).clamp(min=1), torch.zeros_like(count))


def equal_groups(scores: Tensor, present: Tensor | None = None, tolerance: float = 1e-6) -> Tensor:
    """(P, G) scores -> (P,) bool: True where all present answers of a group have the same score.

    Such a group's advantages are 0: it teaches nothing and costs a full update. DAPO (arXiv 2503.14476, section 3.2) leaves
    them out and draws others.
    """
    present = torch.ones_like(scores, dtype=torch.bool) if present is None else present
    low = torch.where(present, scores, torch.full_like(scores, float("inf"))).amin(dim=1)
    high = torch.where(present, scores, torch.full_like(scores, float("-inf"))).amax(dim=1)
    return ~(high - low > tolerance)
