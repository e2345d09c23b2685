"""Which token of an answer is credited with what, when an answer's steps can be checked one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.algorithms.advantages import equal_groups, group_relative


def step_credit(rewards: Tensor, divide_by_std: bool = False, discount: float = 1.0) -> Tensor:
    """rewards (P, G, K): what each of K steps of G answers to P prompts earned, the last one the answer as a whole ->
    advantages (P, G, K) of the tokens of each step.

    Each step's reward is compared with the group's at the same step, and a token is credited with its own step and
    what comes after it: A_j = sum over i >= j of discount^(i - j) (r_i - mean of the group's r_i). At discount 1, GRPO with
    process supervision (Shao et al. 2024, arXiv 2402.03300, section 4.1.3); with K = 1 it is outcome supervision. They sum
    to 0 in each group. A discount below 1 is for steps that can be judged on their own: what went wrong three steps later
    is noise to the first.

    >>> step_credit(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])).tolist()
    [[[0.5, 0.0], [-0.5, 0.0]]]
    """
    num_prompts, group, steps = rewards.shape
    by_step = rewards.permute(0, 2, 1).reshape(num_prompts * steps, group)
    centred = group_relative(by_step, divide_by_std=divide_by_std).reshape(num_prompts, steps, group).permute(0, 2, 1)
    credit = centred.clone()
    for step in range(steps - 2, -1, -1):
        credit[..., step] += discount * credit[..., step + 1]
    return credit


def teaches(rewards: Tensor) -> Tensor:
    """(P, G, K) -> (P,) bool: False where all answers of a group earned the same at every step, so that nothing can be learnt."""
    num_prompts, group, steps = rewards.shape
    equal = equal_groups(rewards.permute(0, 2, 1).reshape(num_prompts * steps, group)).reshape(num_prompts, steps)
    return ~equal.all(dim=1)


def kl_from_hidden(hidden: Tensor, weight: Tensor, ref_hidden: Tensor, ref_weight: Tensor) -> Tensor:
    """KL(reference || policy) of the next token over the whole vocabulary, (N,) in nats; differentiable in hidden, weight.

    hidden, ref_hidden (N, D); weight, ref_weight (V, D). The forward direction: it costs what the reference would say
    and the policy no longer does. Exact, where an estimate from sampled tokens would be noise while the two are equal.
    """
    logp = torch.log_softmax((hidden @ weight.t()).float(), dim=-1)
    with torch.no_grad():
        ref_logp = torch.log_softmax((ref_hidden.to(hidden.dtype) @ ref_weight.to(hidden.dtype).t()).float(), dim=-1)
    return (ref_logp.exp() * (ref_logp - logp)).sum(-1)
