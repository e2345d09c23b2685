"""Laws of learning from a reward, each beside a twin that breaks it. Expectations are taken by enumeration, in float64."""

import math

import pytest
import torch

from fromnoise.algorithms.advantages import gae, group_relative, kl_shaped_rewards, leave_one_out
from fromnoise.algorithms.logprobs import kl_estimates
from fromnoise.algorithms.losses import dpo, grpo, ppo_policy, ppo_value
from fromnoise.algorithms.masking import masked_whiten, sequence_sums
from fromnoise.algorithms.schedules import adapted_kl_coef
from fromnoise.generate.rollout import Answers, RowShape, answer_scores, answer_values, penalised_scores
from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreModel
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer
from fromnoise.run.recipe import Recipe
from fromnoise.stages.rlhf import critic_credit, group_credit

f64 = torch.float64


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    policy, reference = torch.tensor([0.5, 0.3, 0.2], dtype=f64), torch.tensor([0.2, 0.2, 0.6], dtype=f64)
    exact = float((policy * (policy / reference).log()).sum())
    k1, k2, k3 = (float((policy * k).sum()) for k in kl_estimates(policy.log(), reference.log()))
    assert k1 == pytest.approx(exact, abs=1e-12) and k3 == pytest.approx(exact, abs=1e-12)
    assert (kl_estimates(policy.log(), reference.log())[2] >= 0).all() and (kl_estimates(policy.log(), reference.log())[0] < 0).any()
    assert abs(k2 - exact) > 1e-3


def test_the_gradient_of_the_policy_loss_is_that_of_the_expected_reward():
    """A bandit with three arms, by enumeration: E[-grad log pi (r - b)] = -grad E[r], with the leave-one-out baseline or none.
    GRPO's division by the deviation is another direction in length."""
    logits, reward = torch.tensor([0.3, -0.2, 0.5], dtype=f64, requires_grad=True), torch.tensor([1.0, 0.0, 3.0], dtype=f64)
    expected = torch.autograd.grad((logits.softmax(0) * reward).sum(), logits)[0]

    def gradient(advantage_of):
        total = torch.zeros(3, dtype=f64)
        p = logits.detach().softmax(0)
        for i in range(3):
            for j in range(3):  # two answers to the prompt
                logprobs = logits.log_softmax(0)[torch.tensor([i, j])][:, None]
                advantages = advantage_of(reward[torch.tensor([[i, j]])]).reshape(2, 1)
                mask = torch.ones(2, 1, dtype=torch.bool)
                loss, count = grpo(logprobs, logprobs.detach(), advantages, mask, clip_ratio=0.2)
                total += p[i] * p[j] * torch.autograd.grad(loss / count, logits, retain_graph=True)[0]
        return -total

    torch.testing.assert_close(gradient(leave_one_out), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient(lambda r: group_relative(r)) * 2, expected, rtol=1e-9, atol=1e-12)  # G / (G - 1) = 2
    assert not torch.allclose(gradient(lambda r: group_relative(r, divide_by_std=True)), expected, rtol=1e-2)


@pytest.mark.parametrize("kl_by_ratio", [True, False])
def test_the_gradient_of_the_kl_term_is_that_of_the_divergence(kl_by_ratio):
    """Answers of an older policy, by enumeration: with the ratio the expected value and gradient are those of KL(now || ref);
    the published term, the twin, has others."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=f64, requires_grad=True)
    old, ref = torch.tensor([0.5, 0.2, 0.3], dtype=f64), torch.tensor([0.2, 0.5, 0.3], dtype=f64)
    now, mask = logits.log_softmax(0), torch.ones(1, dtype=torch.bool)
    exact = (now.exp() * (now - ref.log())).sum()
    options = {"clip_ratio": 0.2, "kl_coef": 1.0, "kl_by_ratio": kl_by_ratio}
    at = [slice(i, i + 1) for i in range(3)]
    none = torch.zeros(1, dtype=f64)
    term = sum(old[i] * grpo(now[at[i]], old[at[i]].log(), none, mask, ref_logprobs=ref[at[i]].log(), **options)[0] for i in range(3))
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (exact, term)]
    assert torch.allclose(exact, term, rtol=1e-9) is kl_by_ratio
    assert torch.allclose(*gradients, rtol=1e-9) is kl_by_ratio


def test_the_coefficient_adapts_as_published():
    """Ziegler et al. 2019: e = clip(KL / target - 1, -0.2, 0.2), coefficient times 1 + 0.1 e."""
    assert adapted_kl_coef(0.1, 6.6, 6.0) == pytest.approx(0.1 * (1 + 0.1 * 0.1), rel=1e-12)
    assert adapted_kl_coef(0.1, 60.0, 6.0) == pytest.approx(0.102, rel=1e-12)  # an unclipped twin would say 0.19
    assert adapted_kl_coef(0.1, 0.0, 6.0) == pytest.approx(0.098, rel=1e-12)
    assert adapted_kl_coef(0.1, 6.0, 6.0) == 0.1
    coef, kl = 0.01, 20.0
    for _ in range(400):  # a policy whose KL falls as the coefficient rises settles at the target
        coef = adapted_kl_coef(coef, kl, 6.0)
        kl = 0.6 / coef
    assert kl == pytest.approx(6.0, rel=1e-3)
    with pytest.raises(ValueError, match="positive"):
        adapted_kl_coef(0.1, 1.0, 0.0)


def scorer(mean, std):
    config = ModelConfig(vocab_size=64, num_layers=1, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=64, qk_norm=True, tie_embeddings=True,
                         rope_theta=1e4, rms_norm_eps=1e-6, context_tokens=32)  # fmt: skip
    model = ScoreModel(initialize(Transformer(config), seed=1), mean=mean, std=std)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, 64, generator=torch.Generator().manual_seed(2)))
    return model


def test_the_critic_starts_in_the_units_of_the_reward():
    """Its first value at the position of the last token's input is what the reward model says there; a critic that forgot
    mean and deviation starts elsewhere."""
    from contextlib import nullcontext

    answers = Answers([[1, 2, 3], [4, 5]], [[6, 7, 8], [9]], RowShape(16, 1, 0))
    values = answer_values(scorer(0.7, 2.5), answers, answers.batches(), nullcontext)
    before_last = Answers([[1, 2, 3], [4]], [[6, 7], [5]], RowShape(16, 1, 0))  # the same prefixes, read as whole answers
    scores = answer_scores(scorer(0.7, 2.5), before_last, before_last.batches(), nullcontext)
    torch.testing.assert_close(torch.stack([values[0, 2], values[1, 0]]), scores, rtol=1e-5, atol=1e-6)
    forgot = answer_values(scorer(0.0, 1.0), answers, answers.batches(), nullcontext)
    assert (forgot - values).abs()[answers.mask].min() > 1e-3


def test_never_stopping_never_pays():
    scores, stopped = torch.tensor([2.0, 2.0, -1.0, -1.0]), torch.tensor([True, False, True, False])
    assert penalised_scores(scores, stopped, 2.0).tolist() == [2.0, -2.0, -1.0, -3.0]
    replaced = torch.where(stopped, scores, torch.tensor(-2.0))  # the published rule: a bad answer gains by being cut
    assert replaced[3] > penalised_scores(scores, stopped, 2.0)[3]


def settings(**rlhf):
    return Recipe.model_validate({"rlhf": rlhf}).rlhf


def credit_case():
    generator = torch.Generator().manual_seed(5)
    mask = torch.arange(5)[None] < torch.tensor([5, 2, 1, 3])[:, None]
    old, ref, values = (torch.where(mask, torch.randn(4, 5, generator=generator, dtype=f64), 0.0) for _ in range(3))
    return torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=f64), old, ref, values, mask


def test_credit_of_ppo_by_hand():
    scores, old, ref, values, mask = credit_case()
    credit, _ = critic_credit(settings(gamma=1.0, gae_lambda=0.95), scores, old, ref, values, mask, 0.1)
    raw = torch.zeros_like(old)
    for s, length in enumerate(mask.sum(1).tolist()):
        later = 0.0
        for t in range(length - 1, -1, -1):
            reward = -0.1 * float(old[s, t] - ref[s, t]) + (float(scores[s]) if t == length - 1 else 0.0)
            later = reward + (float(values[s, t + 1]) if t + 1 < length else 0.0) - float(values[s, t]) + 0.95 * later
            raw[s, t] = later
    counted = raw[mask]
    white = (raw - counted.mean()) / (counted.var(correction=0) + 1e-8).sqrt()
    torch.testing.assert_close(credit["advantages"], torch.where(mask, white, 0.0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(credit["returns"], raw + torch.where(mask, values, 0.0), rtol=1e-9, atol=1e-9)
    over_padding = (raw - raw.mean()) / raw.std()  # the twin: statistics over padding too
    assert (over_padding[mask] - white[mask]).abs().max() > 0.05


def test_credit_of_groups_by_hand():
    scores, old, ref, _, mask = credit_case()
    credit, watched = group_credit(settings(method="rloo", group_size=2), scores, old, ref, mask, 0.1)
    kl = ((old - ref) * mask).sum(1)
    worth = (scores - 0.1 * kl).tolist()
    expected = torch.tensor([worth[0] - worth[1], worth[1] - worth[0], worth[2] - worth[3], worth[3] - worth[2]], dtype=f64)[:, None] * mask
    torch.testing.assert_close(credit["advantages"], expected, rtol=1e-9, atol=1e-9)
    assert watched["equal_groups_frac"] == 0.0
    credit, _ = group_credit(settings(method="grpo", group_size=2), scores, old, ref, mask, 0.1)
    half = math.sqrt(0.5)  # two answers, their deviation with n - 1: +-1 / sqrt(2), whatever the scores; KL is in the loss instead
    signs = torch.tensor([half, -half, -half, half], dtype=f64)[:, None] * mask
    torch.testing.assert_close(credit["advantages"], signs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(credit["lengths"][:, 0], torch.tensor([5.0, 2.0, 1.0, 3.0], dtype=f64))


def test_sums_over_packed_sequences():
    values = torch.arange(1.0, 13.0).reshape(2, 6)
    values[0, 5] = values[1, 5] = 0.0  # padding
    assert sequence_sums(values, torch.tensor([0, 3, 6, 7])).tolist() == [6.0, 9.0, 7.0, 38.0]


def test_single_precision_stays_within_1e_5():
    """Every loss, its gradient, and GAE: fp32 against float64 on the same numbers."""
    generator = torch.Generator().manual_seed(6)
    now, old, ref, extra = (torch.randn(16, 24, generator=generator, dtype=f64) for _ in range(4))
    old, ref = now + 0.2 * old, now + 0.2 * ref
    mask = torch.rand(16, 24, generator=generator) < 0.8
    lengths = mask.sum(1, keepdim=True).expand(mask.shape)

    def everything(dtype):
        x = now.to(dtype).requires_grad_()
        o, r, a = old.to(dtype), ref.to(dtype), extra.to(dtype)
        whole = answer_like = torch.ones_like(mask)
        rewards = kl_shaped_rewards(a[:, 0], o, r, answer_like, 0.05)
        advantages, returns = gae(rewards, a, whole, 1.0, 0.95)
        options = {"clip_ratio": 0.2, "clip_ratio_high": 0.28, "lengths": lengths, "max_tokens": 24, "ref_logprobs": r, "kl_coef": 0.1}
        losses = [ppo_policy(x, o, a, mask, 0.2), ppo_value(x, o, a, mask, 0.2), *(grpo(x, o, a, mask, aggregation=how, **options) for how in
                  ("token", "sequence", "constant")), *(dpo(x[:, 0], x[:, 1], r[:, 0], r[:, 1], 0.1, variant=v) for v in ("sigmoid", "ipo"))]  # fmt: skip
        values = [total / count for total, count in losses]
        grads = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in values]
        return [*values, *grads, advantages, returns, masked_whiten(a, mask)]

    for single, double in zip(everything(torch.float32), everything(f64), strict=True):
        scale = float(double.detach().abs().max())
        assert float((single.detach().double() - double.detach()).abs().max()) < 1e-5 * max(scale, 1e-3)
