"""Losses: each returns `(sum, count)`, the sum 0-d and differentiable, the count a float with its unit named.

Nothing here divides: `run/update.py` adds the counts of all micro-batches and ranks and divides once, so that
8 micro-batches of 1 give the same gradient as 1 of 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.algorithms.logprobs import kl_estimates, linear_cross_entropy
from fromnoise.algorithms.masking import IGNORE_INDEX, masked_mean, masked_sum


def next_token(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk_tokens: int | None = None
) -> tuple[Tensor, float]:
    """Cross-entropy of the next token. hidden (..., D), weight (V, D), labels (...); unit: token; nats.

    sum over counted t of -log softmax(W h_t)[labels_t].
    """
    nll = linear_cross_entropy(hidden, weight, labels, chunk_tokens=chunk_tokens)
    return nll.sum(), float((labels != IGNORE_INDEX).sum())


def bradley_terry(
    chosen_scores: Tensor, rejected_scores: Tensor, weights: Tensor | None = None, ties: Tensor | None = None
) -> tuple[Tensor, float]:
    """-log P(chosen preferred), P = sigmoid(chosen_score - rejected_score). All (P,); unit: pair; count = sum of weights.

    ties (bool): a tie is half a vote each way, -(log sigmoid(d) + log sigmoid(-d)) / 2, least at d = 0, where it is
    ln 2. Bradley and Terry 1952; as a reward model's loss: Ouyang et al. 2022 (arXiv 2203.02155), equation 1.

    >>> float(bradley_terry(torch.zeros(1), torch.zeros(1))[0])  # doctest: +ELLIPSIS
    0.693147...
    """
    margin = chosen_scores - rejected_scores
    nll = -F.logsigmoid(margin)
    if ties is not None:
        nll = torch.where(ties, 0.5 * (nll - F.logsigmoid(-margin)), nll)
    if weights is None:
        return nll.sum(), float(len(nll))
    return (weights * nll).sum(), float(weights.sum())


def ppo_policy(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_ratio: float, clip_ratio_high: float | None = None
) -> tuple[Tensor, float]:
    """-min(r A, clip(r, 1 - e, 1 + e) A) with r = exp(logprobs - old_logprobs). All (...); unit: token.

    Schulman et al. 2017 (arXiv 1707.06347), equation 7. Before the first update of a batch r = 1 everywhere and the
    loss is minus the mean advantage. `clip_ratio_high` sets the upper bound apart (clip-higher, arXiv 2503.14476).
    `old_logprobs` come from the trainer's own forward pass, not from the sampler.
    """
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    # the difference is masked before exp: padding must neither overflow nor get a gradient through inf * 0
    ratio = torch.exp(torch.where(mask, logprobs - old_logprobs, torch.zeros_like(logprobs)))
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip_ratio, 1.0 + high) * advantages)
    return -masked_sum(surrogate, mask), float(mask.sum())


@torch.no_grad()
def ppo_policy_stats(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, clip_ratio: float) -> dict[str, float]:
    """What to watch of a PPO update, means over the mask: `ratio`, `clip_frac` (share of ratios outside 1 +- e),
    `approx_kl_nats` (k3 of old against new policy, per token)."""
    log_ratio = torch.where(mask, logprobs - old_logprobs, torch.zeros_like(logprobs))
    ratio = log_ratio.exp()
    return {
        "ratio": float(masked_mean(ratio, mask)),
        "clip_frac": float(masked_mean(((ratio - 1.0).abs() > clip_ratio).to(ratio.dtype), mask)),
        "approx_kl_nats": float(masked_mean(ratio - 1.0 - log_ratio, mask)),
    }


def ppo_value(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, value_clip: float) -> tuple[Tensor, float]:
    """0.5 max((V - R)^2, (clip(V, V_old - e, V_old + e) - R)^2). All (...); unit: token.

    The clipped value loss of OpenAI's baselines PPO2 and of Ouyang et al.'s code: taking the larger error removes the
    gradient once V has moved more than e towards R, and keeps it when V moved away.
    """
    clipped = old_values + (values - old_values).clamp(-value_clip, value_clip)
    error = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * masked_sum(error, mask), float(mask.sum())


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> tuple[Tensor, float]:
    """k3 estimate of KL(policy || reference) as a loss (GRPO: Shao et al. 2024, arXiv 2402.03300, equation 4).

    Differentiable in `logprobs`; unit: token.
    """
    log_ratio = torch.where(mask, logprobs - ref_logprobs, torch.zeros_like(logprobs))
    _, _, k3 = kl_estimates(log_ratio, torch.zeros_like(log_ratio))
    return masked_sum(k3, mask), float(mask.sum())


def dpo(
    chosen_logprobs: Tensor, rejected_logprobs: Tensor, ref_chosen_logprobs: Tensor, ref_rejected_logprobs: Tensor, beta: float
) -> tuple[Tensor, float]:
    """-log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected))). All (P,): sums over answer tokens.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7; ln 2 while policy and reference are equal. Unit: pair.
    """
    margin = (chosen_logprobs - ref_chosen_logprobs) - (rejected_logprobs - ref_rejected_logprobs)
    return -F.logsigmoid(beta * margin).sum(), float(len(margin))
