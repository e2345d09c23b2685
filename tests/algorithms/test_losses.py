"""Losses against hand-computed float64 cases and the published formulas, each law beside a broken twin."""

import math

import pytest
import torch
import torch.nn.functional as F

from fromnoise.algorithms.losses import bradley_terry, dpo, grpo, ppo_policy, ppo_policy_stats, ppo_value

f64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=f64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_bradley_terry_by_hand():
    total, count = bradley_terry(tensor(1.0, 0.0), tensor(0.2, 2.0))
    assert float(total.detach()) == pytest.approx(-math.log(sigmoid(0.8)) - math.log(sigmoid(-2.0)), rel=1e-12)
    assert count == 2


def test_bradley_terry_at_zero_is_ln_2_with_and_without_ties():
    for against in (None, torch.tensor([0.5, 0.0, 0.2])):
        total, count = bradley_terry(torch.zeros(3), torch.zeros(3), against=against)
        assert float(total.detach()) / count == pytest.approx(math.log(2), rel=1e-6)
    twin = F.softplus(torch.zeros(3)).sum() * 2 / 3  # counts each pair in both directions
    assert float(twin) != pytest.approx(math.log(2))


def test_bradley_terry_ties_and_weights_by_hand():
    total, count = bradley_terry(tensor(1.0, 1.0), tensor(0.0, 0.0), weights=tensor(0.5, 3.0), against=tensor(0.5, 0.0))
    tie = -0.5 * (math.log(sigmoid(1.0)) + math.log(sigmoid(-1.0)))
    assert float(total.detach()) == pytest.approx(0.5 * tie - 3.0 * math.log(sigmoid(1.0)), rel=1e-12)
    assert count == 3.5
    scores = torch.zeros(1, dtype=f64, requires_grad=True)
    bradley_terry(scores, torch.zeros(1, dtype=f64), against=tensor(0.5))[0].backward()
    assert scores.grad == 0  # a tie pulls two equal scores nowhere


def test_several_votes_on_a_pair_cost_the_mean_of_each_alone():
    chosen, rejected = tensor(0.3, 0.3, 0.3, 0.3, 0.3), tensor(-0.4, -0.4, -0.4, -0.4, -0.4)
    one_by_one = float(bradley_terry(chosen[:4], rejected[:4])[0]) + float(bradley_terry(rejected[:1], chosen[:1])[0])
    total, count = bradley_terry(chosen[:1], rejected[:1], against=tensor(0.2))
    assert count == 1 and float(total.detach()) == pytest.approx(one_by_one / 5, rel=1e-12)
    assert float(bradley_terry(chosen[:1], rejected[:1])[0]) != pytest.approx(one_by_one / 5)  # the majority alone
    zeros = torch.zeros(5, dtype=f64)
    one_by_one = float(dpo(chosen[:4], rejected[:4], zeros[:4], zeros[:4], 0.1)[0]) + float(dpo(rejected[:1], chosen[:1], zeros[:1], zeros[:1], 0.1)[0])
    assert float(dpo(chosen[:1], rejected[:1], zeros[:1], zeros[:1], 0.1, against=tensor(0.2))[0]) == pytest.approx(one_by_one / 5, rel=1e-12)


def test_bradley_terry_is_finite_far_out():
    scores = torch.tensor([-1e4], requires_grad=True)
    total, _ = bradley_terry(scores, torch.tensor([1e4]))
    total.backward()
    assert total == 2e4 and scores.grad == -1


def policy_case():
    logprobs = tensor([-1.0, -2.0, -0.5, -9.0]).requires_grad_()
    old = tensor([-1.2, -1.5, -0.5, 50.0])
    advantages = tensor([1.0, -1.0, 2.0, 1e9])
    mask = torch.tensor([[True, True, True, False]])
    return logprobs, old, advantages, mask


def test_ppo_policy_by_hand():
    """Ratios e^0.2 = 1.2214 (clipped at 1.2, A > 0), e^-0.5 = 0.6065 (clipped at 0.8, A < 0), 1; the last is masked."""
    logprobs, old, advantages, mask = policy_case()
    total, count = ppo_policy(logprobs, old, advantages, mask, 0.2)
    assert count == 3
    assert float(total.detach()) == pytest.approx(-(1.2 * 1.0 + 0.8 * -1.0 + 1.0 * 2.0), rel=1e-12)
    total.backward()
    assert logprobs.grad.tolist()[0] == pytest.approx([0.0, 0.0, -2.0, 0.0])  # clipped and masked tokens get none


def test_ppo_keeps_the_gradient_where_clipping_would_hide_a_mistake():
    logprobs = tensor([-0.5]).requires_grad_()
    ppo_policy(logprobs, tensor([-1.0]), tensor([-1.0]), torch.tensor([True]), 0.2)[0].backward()  # rose, though bad
    assert float(logprobs.grad) == pytest.approx(math.exp(0.5))
    twin = tensor([-0.5]).requires_grad_()
    (torch.exp(twin + 1.0).clamp(0.8, 1.2) * 1.0).sum().backward()  # clips without the minimum: stuck
    assert twin.grad == 0


def test_ppo_ratios_start_at_one():
    logprobs = (-torch.rand(4, 5, dtype=f64) - 0.5).requires_grad_()
    advantages, mask = torch.randn(4, 5, dtype=f64), torch.rand(4, 5) < 0.7
    total, _ = ppo_policy(logprobs, logprobs.detach(), advantages, mask, 0.2)
    stats = ppo_policy_stats(logprobs, logprobs.detach(), mask, 0.2)
    assert stats == {"ratio": 1.0, "clip_frac": 0.0, "approx_kl_nats": 0.0}
    assert float(total.detach()) == pytest.approx(-float(advantages[mask].sum()))
    (grad,) = torch.autograd.grad(total, logprobs)
    torch.testing.assert_close(grad, torch.where(mask, -advantages, 0.0))  # the plain policy gradient
    twin = ppo_policy_stats(logprobs / 0.7, logprobs.detach(), mask, 0.2)  # the sampler's temperature on one side only
    assert twin["ratio"] != pytest.approx(1.0, rel=1e-2)


def test_ppo_clip_higher():
    total, _ = ppo_policy(tensor([0.5]), tensor([0.0]), tensor([1.0]), torch.tensor([True]), 0.2, 0.28)
    assert float(total.detach()) == pytest.approx(-1.28)


def test_ppo_stats_by_hand():
    logprobs, old, _, mask = policy_case()
    stats = ppo_policy_stats(logprobs, old, mask, 0.2)
    r = [math.exp(0.2), math.exp(-0.5), 1.0]
    assert stats["ratio"] == pytest.approx(sum(r) / 3)
    assert stats["clip_frac"] == pytest.approx(2 / 3)
    assert stats["approx_kl_nats"] == pytest.approx((r[0] - 1 - 0.2 + r[1] - 1 + 0.5) / 3)


def test_ppo_value_by_hand():
    """V moved 0.5 towards R = 2 and is clipped to 1.2: (1.2 - 2)^2 wins; V moved away: its own error wins; masked."""
    values = tensor([1.5, 0.0, 7.0]).requires_grad_()
    total, count = ppo_value(values, tensor([1.0, 1.0, 1.0]), tensor([2.0, 2.0, 2.0]), torch.tensor([[True, True, False]]), 0.2)
    assert count == 2
    assert float(total.detach()) == pytest.approx(0.5 * (0.8**2 + 2.0**2))
    total.backward()
    assert values.grad.tolist()[0] == pytest.approx([0.0, -2.0, 0.0])


def test_the_kl_term_is_zero_at_the_reference_and_pulls_back():
    ref, mask = tensor([-1.0, -2.0]), torch.tensor([[True, True]])

    def kl_alone(logprobs):
        return grpo(logprobs, logprobs.detach(), torch.zeros_like(ref), mask, clip_ratio=0.2, ref_logprobs=ref, kl_coef=1.0, kl_by_ratio=False)

    same = ref.clone().requires_grad_()
    total, _ = kl_alone(same)
    total.backward()
    assert total == 0 and not same.grad.any()
    moved = tensor([-0.5, -2.0]).requires_grad_()
    total, count = kl_alone(moved)
    total.backward()
    assert float(total.detach()) == pytest.approx(math.exp(-0.5) - 1 + 0.5)
    assert moved.grad[0, 0] == pytest.approx(1 - math.exp(-0.5)) and count == 2


def test_dpo_starts_at_ln_2():
    chosen, rejected = torch.randn(5, dtype=f64) - 20, torch.randn(5, dtype=f64) - 30
    total, count = dpo(chosen, rejected, chosen, rejected, 0.1)
    assert float(total.detach()) / count == pytest.approx(math.log(2), rel=1e-12)
    twin, _ = dpo(chosen, rejected, torch.zeros(5), torch.zeros(5), 0.1)  # forgets the reference
    assert float(twin) / count != pytest.approx(math.log(2), rel=1e-2)


def test_dpo_by_hand_and_its_gradient():
    chosen = tensor(-10.0).requires_grad_()
    total, _ = dpo(chosen, tensor(-12.0), tensor(-11.0), tensor(-11.5), 0.1)
    assert float(total.detach()) == pytest.approx(-math.log(sigmoid(0.1 * (1.0 - -0.5))), rel=1e-12)
    total.backward()
    assert float(chosen.grad) == pytest.approx(-0.1 * sigmoid(-0.15), rel=1e-12)


def grpo_case():
    """Three answers of 4, 2 and 1 tokens and their advantages, float64."""
    generator = torch.Generator().manual_seed(4)
    old = -torch.rand(3, 4, generator=generator, dtype=f64) - 0.5
    logprobs = (old + 0.3 * torch.randn(3, 4, generator=generator, dtype=f64)).requires_grad_()
    ref = old + 0.2 * torch.randn(3, 4, generator=generator, dtype=f64)
    lengths = torch.tensor([4, 2, 1])
    mask = torch.arange(4)[None] < lengths[:, None]
    advantages = tensor(1.0, -0.7, -0.3)[:, None].expand(3, 4)
    return logprobs, old, ref, advantages, mask, lengths[:, None].expand(3, 4)


def grpo_by_definition(logprobs, old, ref, advantages, mask, aggregation, low, high, kl_coef, max_tokens, kl_by_ratio=True):
    """Plain Python, token by token, as the papers write it; the mean itself."""
    answers = []
    for s in range(len(mask)):
        tokens = []
        for t in range(int(mask[s].sum())):
            r, a = math.exp(float((logprobs[s, t] - old[s, t]).detach())), float(advantages[s, t])
            u = float((ref[s, t] - logprobs[s, t]).detach())
            tokens.append(-min(r * a, min(max(r, 1 - low), 1 + high) * a) + kl_coef * (math.exp(u) - u - 1) * (r if kl_by_ratio else 1.0))
        answers.append(tokens)
    if aggregation == "token":
        return sum(map(sum, answers)) / sum(map(len, answers))
    if aggregation == "sequence":
        return sum(sum(tokens) / len(tokens) for tokens in answers) / len(answers)
    return sum(map(sum, answers)) / (len(answers) * max_tokens)


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
@pytest.mark.parametrize(("high", "kl_coef"), [(None, 0.0), (0.28, 0.0), (0.28, 0.1)])
def test_grpo_equals_its_definition(aggregation, high, kl_coef):
    logprobs, old, ref, advantages, mask, lengths = grpo_case()
    options = {"clip_ratio": 0.2, "clip_ratio_high": high, "aggregation": aggregation, "lengths": lengths, "max_tokens": 6, "kl_coef": kl_coef}
    total, count = grpo(logprobs, old, advantages, mask, ref_logprobs=ref, **options)
    expected = grpo_by_definition(logprobs, old, ref, advantages, mask, aggregation, 0.2, high or 0.2, kl_coef, 6)
    assert float(total.detach()) / count == pytest.approx(expected, abs=1e-12)
    assert count == (7 if aggregation == "token" else 3)
    (grad,) = torch.autograd.grad(total, logprobs)
    assert not grad[~mask].any() and grad[mask].any()
    # cut in two micro-batches, sums and counts add up to the same
    parts = [grpo(logprobs[i], old[i], advantages[i], mask[i], ref_logprobs=ref[i], **{**options, "lengths": lengths[i]}) for i in (slice(0, 1), slice(1, 3))]
    assert sum(float(part[0].detach()) for part in parts) / sum(part[1] for part in parts) == pytest.approx(expected, abs=1e-12)
    others = [name for name in ("token", "sequence", "constant") if name != aggregation]  # the broken twins: another mean
    for other in others:
        assert grpo_by_definition(logprobs, old, ref, advantages, mask, other, 0.2, high or 0.2, kl_coef, 6) != pytest.approx(expected, rel=1e-3)


def test_grpo_with_its_kl_as_published_in_2024():
    logprobs, old, ref, advantages, mask, _ = grpo_case()
    total, count = grpo(logprobs, old, advantages, mask, clip_ratio=0.2, ref_logprobs=ref, kl_coef=0.5, kl_by_ratio=False)
    expected = grpo_by_definition(logprobs, old, ref, advantages, mask, "token", 0.2, 0.2, 0.5, 6, kl_by_ratio=False)
    assert float(total.detach()) / count == pytest.approx(expected, abs=1e-12)


def test_grpo_without_length_bias():
    """Two wrong answers, one four times as long: by sequence its tokens are punished a quarter as hard, by token alike."""
    mask = torch.arange(8)[None] < torch.tensor([[8], [2]])
    lengths = torch.tensor([[8], [2]]).expand(2, 8)

    def push(aggregation):
        logprobs = torch.full((2, 8), -1.0, dtype=f64, requires_grad=True)
        total, _ = grpo(logprobs, logprobs.detach(), -torch.ones(2, 8, dtype=f64), mask, clip_ratio=0.2, aggregation=aggregation, lengths=lengths, max_tokens=8)
        return torch.autograd.grad(total, logprobs)[0][:, 0].tolist()

    long, short = push("token")
    assert long == short == 1.0
    long, short = push("constant")
    assert long == short == 0.125
    long, short = push("sequence")
    assert short / long == 4.0


def test_grpo_asks_for_what_it_needs():
    one, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="lengths"):
        grpo(one, one, one, mask, clip_ratio=0.2, aggregation="sequence")
    with pytest.raises(ValueError, match="max_tokens"):
        grpo(one, one, one, mask, clip_ratio=0.2, aggregation="constant", lengths=one)
    with pytest.raises(ValueError, match="ref_logprobs"):
        grpo(one, one, one, mask, clip_ratio=0.2, kl_coef=0.1)


def test_dpo_variants_by_hand():
    """m = (1.0) - (-0.5) = 1.5; the second pair is a tie, the third weighs half."""
    chosen, rejected = tensor(-10.0, -10.0, -3.0), tensor(-12.0, -12.0, -2.0)
    ref = tensor(-11.0, -11.0, -3.0), tensor(-11.5, -11.5, -3.0)  # margins 1.5, 1.5, -1
    logsig = lambda x: math.log(sigmoid(x))  # noqa: E731
    total, count = dpo(chosen[:1], rejected[:1], ref[0][:1], ref[1][:1], 0.1, label_smoothing=0.2)
    assert float(total.detach()) == pytest.approx(-0.8 * logsig(0.15) - 0.2 * logsig(-0.15), rel=1e-12) and count == 1
    total, _ = dpo(chosen[:1], rejected[:1], ref[0][:1], ref[1][:1], 0.5, variant="ipo")
    assert float(total.detach()) == pytest.approx((1.5 - 1.0) ** 2, rel=1e-12)
    total, count = dpo(chosen, rejected, *ref, 0.1, weights=tensor(1.0, 1.0, 0.5), against=tensor(0.0, 0.5, 0.0))
    expected = -logsig(0.15) - 0.5 * (logsig(0.15) + logsig(-0.15)) - 0.5 * logsig(-0.1)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-12) and count == 2.5
    total, _ = dpo(chosen, rejected, chosen, rejected, 0.1, label_smoothing=0.3)
    assert float(total.detach()) / 3 == pytest.approx(math.log(2), rel=1e-12)  # still ln 2 at the reference


def test_ipo_has_a_place_to_stop_and_dpo_has_none():
    far = tensor(5.0).requires_grad_()
    dpo(far, tensor(0.0), tensor(0.0), tensor(0.0), 0.1, variant="ipo")[0].backward()
    assert float(far.grad) == 0.0  # m = 1 / (2 beta)
    twin = tensor(5.0).requires_grad_()
    dpo(twin, tensor(0.0), tensor(0.0), tensor(0.0), 0.1)[0].backward()
    assert float(twin.grad) < 0.0
