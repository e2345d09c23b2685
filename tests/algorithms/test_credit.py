"""Credit by step, by hand; the anchor's KL against torch's own."""

import pytest
import torch

from fromnoise.algorithms.advantages import group_relative
from fromnoise.algorithms.credit import kl_from_hidden, step_credit, teaches


def test_by_hand():
    """Two answers, three steps: own step, plus half of what follows."""
    rewards = torch.tensor([[[1.0, 0.0, 4.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([[0.5 + 0.5 * (0 + 0.5 * 2), 0.5 * 2, 2.0]], dtype=torch.float64)
    found = step_credit(rewards, discount=0.5)
    assert torch.allclose(found[0, 0], expected[0]) and torch.allclose(found[0, 1], -expected[0])


def test_one_step_is_the_group_relative_advantage():
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for by_std in (False, True):
        assert torch.allclose(step_credit(scores[..., None], by_std)[..., 0], group_relative(scores, divide_by_std=by_std))


def test_credit_sums_to_zero_in_each_group():
    rewards = torch.rand(6, 8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert step_credit(rewards).sum(dim=1).abs().max() < 1e-12
    assert step_credit(rewards + 1.0).sub(step_credit(rewards)).abs().max() < 1e-12  # what all have earns nothing


def test_an_earlier_steps_reward_is_not_credited_to_a_later_token():
    rewards = torch.zeros(1, 2, 3)
    rewards[0, 0, 0] = 1.0
    assert step_credit(rewards)[0, 0].tolist() == [0.5, 0.0, 0.0]


def test_teaches():
    rewards = torch.zeros(3, 2, 2)
    rewards[0] = 1.0  # all right
    rewards[2, 0, 1], rewards[2, 1, 0] = 1.0, 1.0  # equal in total, not step by step
    assert teaches(rewards).tolist() == [False, False, True]


def test_anchor_kl_equals_torchs():
    g = torch.Generator().manual_seed(2)
    hidden, ref = (torch.randn(7, 5, generator=g, dtype=torch.float32) for _ in range(2))
    weight, ref_weight = (torch.randn(11, 5, generator=g) for _ in range(2))
    logp, ref_logp = ((h @ w.t()).log_softmax(-1) for h, w in ((hidden, weight), (ref, ref_weight)))
    expected = torch.nn.functional.kl_div(logp, ref_logp, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(kl_from_hidden(hidden, weight, ref, ref_weight), expected, rtol=1e-5)
    hidden.requires_grad_()
    same = kl_from_hidden(hidden, weight, hidden.detach(), weight).sum()
    same.backward()
    assert same.item() == pytest.approx(0, abs=1e-6) and hidden.grad.abs().max() < 1e-6  # no pull while nothing has moved
