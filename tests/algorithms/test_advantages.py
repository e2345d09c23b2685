"""GAE and its neighbours against hand-computed cases and the textbook's double sum."""

import pytest
import torch

from fromnoise.algorithms.advantages import answer_mask, equal_groups, gae, group_relative, kl_shaped_rewards, leave_one_out, pack, unpack
from fromnoise.algorithms.masking import masked_whiten

f64 = torch.float64


def gae_by_definition(rewards, values, length, gamma, lam):
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, written as the paper does, one sequence, plain Python."""
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < length else 0.0) - values[t] for t in range(length)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t)) for t in range(length)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_gae_equals_its_definition(gamma, lam):
    generator = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(4, 6, generator=generator, dtype=f64), torch.randn(4, 6, generator=generator, dtype=f64)
    lengths = torch.tensor([6, 1, 0, 3])
    mask = answer_mask(lengths)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for s, length in enumerate(lengths.tolist()):
        expected = gae_by_definition(rewards[s].tolist(), values[s].tolist(), length, gamma, lam)
        assert advantages[s, :length].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert not advantages[~mask].any() and not returns[~mask].any()
    torch.testing.assert_close(returns[mask], (advantages + values)[mask])


def test_gae_by_hand():
    """Two tokens, reward 1 at the end, values 0.5 and 0.25, gamma 1, lambda 0.5: deltas -0.25 and 0.75."""
    advantages, returns = gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.tensor([[True, True]]), 1.0, 0.5)
    assert advantages.tolist() == [[-0.25 + 0.5 * 0.75, 0.75]]
    assert returns.tolist() == [[0.125 + 0.5, 1.0]]


def test_padding_changes_nothing():
    generator = torch.Generator().manual_seed(2)
    rewards, values = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    narrow, _ = gae(rewards, values, mask, 1.0, 0.95)
    wide, _ = gae(*(torch.nn.functional.pad(x, (0, 4), value=v) for x, v in ((rewards, 9.0), (values, float("nan")), (mask, False))), 1.0, 0.95)
    torch.testing.assert_close(wide[:, :3], narrow)


def broken_gae(rewards, values, mask, gamma, lam):
    """Takes the critic's guess in the padding for the value after the end."""
    advantages, later = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        after = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
        later = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * later
        advantages[:, t] = later
    return advantages


def test_broken_twin_bootstraps_from_padding():
    rewards, values = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 3.0]])
    mask = torch.tensor([[True, False]])
    assert gae(rewards, values, mask, 1.0, 0.95)[0][0, 0] == 0.5
    assert broken_gae(rewards, values, mask, 1.0, 0.95)[0, 0] != 0.5


def test_kl_shaped_rewards_by_hand():
    logprobs, ref = torch.tensor([[-1.0, -2.0, 7.0], [-1.0, 7.0, 7.0]]), torch.tensor([[-1.5, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    mask = answer_mask(torch.tensor([2, 1]), 3)
    rewards = kl_shaped_rewards(torch.tensor([3.0, -1.0]), logprobs, ref, mask, kl_coef=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1 + 3.0, 0.0], [-1.0, 0.0, 0.0]]))


def test_empty_answer_poisons_no_baseline():
    """An empty answer has no token: it gets no reward, and changes nobody's advantage, return or whitening."""
    mask = answer_mask(torch.tensor([2, 0, 1]), 2)
    scores = torch.tensor([1.0, float("nan"), 2.0])
    logprobs = torch.tensor([[-1.0, -1.0], [float("nan"), 0.0], [-1.0, 0.0]])
    rewards = kl_shaped_rewards(scores, logprobs, torch.zeros(3, 2), mask, 0.1)
    white = masked_whiten(gae(rewards, torch.zeros(3, 2), mask, 1.0, 0.95)[0], mask)
    alone = mask[[0, 2]]
    rewards_alone = kl_shaped_rewards(scores[[0, 2]], logprobs[[0, 2]], torch.zeros(2, 2), alone, 0.1)
    torch.testing.assert_close(white[[0, 2]], masked_whiten(gae(rewards_alone, torch.zeros(2, 2), alone, 1.0, 0.95)[0], alone))
    assert not white[1].any()
    advantages = group_relative(torch.tensor([[1.0, float("nan"), 3.0]]), torch.tensor([[True, False, True]]))
    assert advantages.tolist() == [[-1.0, 0.0, 1.0]]
    twin = torch.tensor([[1.0, 0.0, 3.0]])  # an empty answer scored 0 and counted moves the others' baseline
    assert (twin - twin.mean()).tolist() != [[-1.0, 0.0, 1.0]]


@pytest.mark.parametrize("divide_by_std", [False, True])
def test_group_advantages_sum_to_zero(divide_by_std):
    scores = torch.randn(5, 4, dtype=f64, generator=torch.Generator().manual_seed(3)) + 10
    advantages = group_relative(scores, divide_by_std=divide_by_std)
    assert advantages.sum(dim=1).abs().max() < 1e-12
    twin = scores - scores.mean()  # one mean for the whole batch
    assert twin.sum(dim=1).abs().max() > 1e-2


def test_group_relative_with_std_equals_the_paper():
    scores = torch.tensor([[1.0, 2.0, 4.0]], dtype=f64)
    expected = (scores - scores.mean()) / (scores.std() + 1e-6)
    torch.testing.assert_close(group_relative(scores, divide_by_std=True), expected)
    assert not group_relative(torch.ones(1, 3), divide_by_std=True).any()  # equal rewards teach nothing


def test_leave_one_out_by_hand():
    assert leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[1 - 4, 2 - 3.5, 6 - 1.5]]
    with pytest.raises(ValueError, match="two answers"):
        leave_one_out(torch.ones(3, 1))


def test_leave_one_out_leaves_out_who_is_absent():
    scores = torch.tensor([[1.0, float("nan"), 6.0], [5.0, 0.0, 0.0]])
    found = leave_one_out(scores, torch.tensor([[True, False, True], [True, False, False]]))
    assert found.tolist() == [[-5.0, 0.0, 5.0], [0.0, 0.0, 0.0]]  # alone there is no baseline, so nothing to learn
    twin = scores.nan_to_num()[0] - (scores.nan_to_num()[0].sum() - scores.nan_to_num()[0]) / 2  # counts the absent one as 0
    assert twin.tolist() != found[0].tolist()


def test_groups_of_equal_reward_are_flagged():
    scores = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.5, 9.0, 0.5], [float("nan")] * 3])
    present = torch.tensor([[True] * 3, [True] * 3, [True, False, True], [False] * 3])
    assert equal_groups(scores, present).tolist() == [True, False, True, True]
    assert not group_relative(scores[:1]).any()


def test_pack_and_unpack_are_inverses():
    """Three answers in two rows of 8: prompts of 2, 1, 3 tokens, answers of 3, 2, 4 tokens."""
    shape, first_index = (2, 8), torch.tensor([1, 5, 8 + 2])
    mask = answer_mask(torch.tensor([3, 2, 4]))
    padded = torch.where(mask, torch.arange(1.0, 13.0).reshape(3, 4), 0.0)
    packed = pack(padded, first_index, mask, shape)
    assert packed.tolist() == [[0, 1, 2, 3, 0, 5, 6, 0], [0, 0, 9, 10, 11, 12, 0, 0]]
    torch.testing.assert_close(unpack(packed, first_index, mask), padded)
    off_by_one = unpack(packed, first_index + 1, mask)  # the broken twin: values of the next token
    assert not torch.allclose(off_by_one, padded)


def test_unpack_at_the_end_of_the_last_row():
    packed = torch.arange(6.0).reshape(2, 3)
    mask = answer_mask(torch.tensor([1, 3]))
    assert unpack(packed, torch.tensor([5, 0]), mask).tolist() == [[5, 0, 0], [0, 1, 2]]
