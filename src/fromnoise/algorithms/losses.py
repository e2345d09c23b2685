"""Losses: each returns `(sum, count)`, the sum 0-d and differentiable, the count a float with its unit named.

Nothing here divides: `run/update.py` adds the counts of all micro-batches and ranks and divides once, so that
8 micro-batches of 1 give the same gradient as 1 of 8.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.algorithms.logprobs import kl_estimates
from fromnoise.algorithms.masking import masked_mean, masked_sum


def bradley_terry(chosen_scores: Tensor, rejected_scores: Tensor, weights: Tensor | None = None, against: Tensor | None = None) -> tuple[Tensor, float]:
    """-log P(chosen preferred), P = sigmoid(chosen_score - rejected_score). All (P,); unit: pair; count = sum of weights.

    against: the share of the votes that went the other way, 0 where all agree. A tie is half a vote each way,
    -(log sigmoid(d) + log sigmoid(-d)) / 2, least at d = 0, where it is ln 2. Bradley and Terry 1952; as a reward model's
    loss: Ouyang et al. 2022 (arXiv 2203.02155), equation 1.

    >>> float(bradley_terry(torch.zeros(1), torch.zeros(1))[0])  # doctest: +ELLIPSIS
    0.693147...
    """
    margin = chosen_scores - rejected_scores
    nll = -F.logsigmoid(margin)
    if against is not None:
        nll = (1.0 - against) * nll - against * F.logsigmoid(-margin)
    if weights is None:
        return nll.sum(), float(len(nll))
    return (weights * nll).sum(), float(weights.sum())


def masked_log_ratio(logprobs: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """logprobs - other, 0 off the mask: masked before exp, where padding must neither overflow nor get a gradient through inf * 0."""
    return torch.where(mask, logprobs - other, torch.zeros_like(logprobs))


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_ratio: float, clip_ratio_high: float | None = None
) -> tuple[Tensor, Tensor]:
    """(ratio r, min(r A, clip(r, 1 - e, 1 + e) A)) of each token, what PPO and GRPO have in common; off the mask r = 1."""
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    ratio = torch.exp(masked_log_ratio(logprobs, old_logprobs, mask))
    return ratio, torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip_ratio, 1.0 + high) * advantages)


def ppo_policy(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_ratio: float, clip_ratio_high: float | None = None
) -> tuple[Tensor, float]:
    """-min(r A, clip(r, 1 - e, 1 + e) A) with r = exp(logprobs - old_logprobs). All (...); unit: token.

    Schulman et al. 2017 (arXiv 1707.06347), equation 7. Before the first update of a batch r = 1 everywhere and the
    loss is minus the mean advantage. `clip_ratio_high` sets the upper bound apart (clip-higher, arXiv 2503.14476).
    `old_logprobs` come from the trainer's own forward pass, not from the sampler.
    """
    _, surrogate = clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip_ratio, clip_ratio_high)
    return -masked_sum(surrogate, mask), float(mask.sum())


@torch.no_grad()
def ppo_policy_stats(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, clip_ratio: float, clip_ratio_high: float | None = None) -> dict[str, float]:
    """What to watch of a PPO update, means over the mask: `ratio`, `clip_frac` (share of ratios outside the bounds),
    `approx_kl_nats` (k3 of old against new policy, per token)."""
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    log_ratio = masked_log_ratio(logprobs, old_logprobs, mask)
    ratio = log_ratio.exp()
    return {
        "ratio": float(masked_mean(ratio, mask)),
        "clip_frac": float(masked_mean(((ratio < 1.0 - clip_ratio) | (ratio > 1.0 + high)).to(ratio.dtype), mask)),
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


Aggregation = Literal["token", "sequence", "constant"]


def grpo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_ratio: float,
    clip_ratio_high: float | None = None,
    aggregation: Aggregation = "token",
    lengths: Tensor | None = None,
    max_tokens: int | None = None,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_by_ratio: bool = True,
) -> tuple[Tensor, float]:
    """The clipped loss of `ppo_policy` plus kl_coef times k3 of every token, weighed by `aggregation`. All (...), packed or padded.

    advantages: of the answer that a token belongs to, the same at each of its tokens. How an answer's tokens are weighed:

    - "token": each token 1, the count is tokens. DAPO (Yu et al. 2025, arXiv 2503.14476, equation 8): no length bias within
      a batch, long answers have a larger say in all.
    - "sequence": 1 / its answer's length, the count is answers. GRPO as published (Shao et al. 2024, arXiv 2402.03300,
      equation 3): a wrong answer is punished less for each token the longer it is.
    - "constant": 1 / max_tokens, the count is answers. Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).

    lengths (...): counted tokens of each token's answer, needed by the last two, which count an answer without tokens as
    none. clip_ratio_high: the upper bound on its own (clip-higher, arXiv 2503.14476, equation 10). ref_logprobs: needed
    when kl_coef > 0. kl_by_ratio: k3 is multiplied by the ratio, so that value and gradient are those of the divergence, of
    answers of the old policy too (DeepSeek-V3.2, arXiv 2512.02556); without it, as published in 2024, the value is right
    only before the first update, and the gradient not even then.
    """
    ratio, surrogate = clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip_ratio, clip_ratio_high)
    loss = -surrogate
    if kl_coef:
        if ref_logprobs is None:
            raise ValueError("a KL term needs ref_logprobs")
        log_ratio = masked_log_ratio(logprobs, ref_logprobs, mask)
        k3 = kl_estimates(log_ratio, torch.zeros_like(log_ratio))[2]
        loss = loss + kl_coef * (ratio * k3 if kl_by_ratio else k3)
    if aggregation == "token":
        return masked_sum(loss, mask), float(mask.sum())
    if lengths is None or (aggregation == "constant" and max_tokens is None):
        raise ValueError(f"aggregation={aggregation!r} needs lengths" + (" and max_tokens" if aggregation == "constant" else ""))
    share = 1.0 / lengths.clamp(min=1).to(loss.dtype)  # of one answer; off the mask it may be anything
    weight = share if aggregation == "sequence" else torch.full_like(share, 1.0 / (max_tokens or 1))
    return masked_sum(weight * loss, mask), float(round(float(masked_sum(share.double(), mask))))


def dpo(
    chosen_logprobs: Tensor,
    rejected_logprobs: Tensor,
    ref_chosen_logprobs: Tensor,
    ref_rejected_logprobs: Tensor,
    beta: float,
    *,
    variant: Literal["sigmoid", "ipo"] = "sigmoid",
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    against: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Direct preference optimization on m = (log pi - log ref)(chosen) - (log pi - log ref)(rejected). All (P,); unit: pair.

    sigmoid: -log sigmoid(beta m), Rafailov et al. 2023 (arXiv 2305.18290), equation 7; ln 2 while policy and reference are
    equal. ipo: (m - 1 / (2 beta))^2, Azar et al. 2023 (arXiv 2310.12036), equation 17. The log-probabilities are sums over
    an answer's tokens, or means over them for the length-normalised form, which is also how IPO's authors use theirs.
    label_smoothing e: the choice was the other way round with probability e, so (1 - e) loss(m) + e loss(-m) (conservative
    DPO: Mitchell 2023, https://ericmitchell.ai/cdpo.pdf). against: as in `bradley_terry`; a tie, 1/2, is half a vote each way,
    whatever e is. count = sum of weights.
    """
    margin = (chosen_logprobs - ref_chosen_logprobs) - (rejected_logprobs - ref_rejected_logprobs)
    flipped = torch.full_like(margin, label_smoothing)
    if against is not None:
        flipped = flipped + against * (1.0 - 2.0 * label_smoothing)
    if variant == "ipo":
        as_chosen, reversed_ = (margin - 0.5 / beta) ** 2, (margin + 0.5 / beta) ** 2
    else:
        as_chosen, reversed_ = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    loss = (1.0 - flipped) * as_chosen + flipped * reversed_
    if weights is None:
        return loss.sum(), float(len(loss))
    return (weights * loss).sum(), float(weights.sum())
