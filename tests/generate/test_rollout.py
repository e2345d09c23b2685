"""Answers packed and padded: each position must be the one a single, unpacked forward pass speaks of."""

from contextlib import nullcontext

import pytest
import torch

from fromnoise.generate.rollout import Answers, RowShape, answer_logprobs, answer_scores, answer_values, penalised_scores, shuffled_rows
from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreModel
from fromnoise.model.initialize import initialize
from fromnoise.model.transformer import Transformer

SHAPE = RowShape(row_tokens=16, num_rows=2, pad_id=0)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14], [15]]
ANSWERS = [[20, 21, 3], [22, 3], [23, 24, 25, 26, 27], [3], []]
# answers to one prompt share it: within a row, over two rows (the third prompt's do not fit one), with a single token, and with an empty answer first
SHARED_PROMPTS = [[5, 6, 7]] * 3 + [[9, 10, 11, 12]] * 4 + [[8]] * 2 + [[13, 14]] * 2 + [[15, 16, 17]]
SHARED_ANSWERS = [[20, 21, 3], [22, 3], [23, 3], [24, 25, 26, 27, 3], [28, 3], [29, 30, 31, 32, 33, 34], [3], [35, 3], [36, 3], [], [37, 38, 3], [39]]
BOTH = pytest.mark.parametrize(("prompts", "found"), [(PROMPTS, ANSWERS), (SHARED_PROMPTS, SHARED_ANSWERS)], ids=["alone", "shared"])


def tiny(seed=0):
    config = ModelConfig(vocab_size=64, num_layers=1, width=64, num_heads=1, num_kv_heads=1, head_size=64, ffn_width=64, qk_norm=True,
                         tie_embeddings=True, rope_theta=1e4, rms_norm_eps=1e-6, context_tokens=32)  # fmt: skip
    model = initialize(Transformer(config), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


@BOTH
def test_logprobs_equal_those_of_each_answer_alone(model, prompts, found):
    answers = Answers(prompts, found, SHAPE)
    logprobs, entropy = answer_logprobs(model, answers, answers.batches(), 0.7, nullcontext)
    for s, (prompt, answer) in enumerate(zip(prompts, found, strict=True)):
        if not answer:
            continue
        full = torch.log_softmax(model.logits(model(torch.tensor([prompt + answer])))[0] / 0.7, dim=-1)
        at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)  # position t predicts token t + 1
        torch.testing.assert_close(logprobs[s, : len(answer)], full[at, torch.tensor(answer)].detach(), rtol=1e-5, atol=1e-5)
        expected = -(full.exp() * full).sum(-1)[at].detach()
        torch.testing.assert_close(entropy[s, : len(answer)], expected, rtol=1e-5, atol=1e-5)
    assert not logprobs[~answers.mask].any()


@BOTH
def test_values_and_scores_stand_where_they_belong(model, prompts, found):
    critic = ScoreModel(model, mean=0.5, std=2.0)
    with torch.no_grad():
        critic.score.weight.copy_(torch.randn(critic.score.weight.shape, generator=torch.Generator().manual_seed(1)))
    answers = Answers(prompts, found, SHAPE)
    values = answer_values(critic, answers, answers.batches(), nullcontext)
    scores = answer_scores(critic, answers, answers.batches(), nullcontext)
    for s, (prompt, answer) in enumerate(zip(prompts, found, strict=True)):
        alone = (critic(torch.tensor([prompt + answer]))[0].detach() - 0.5) / 2.0
        torch.testing.assert_close(scores[s], alone[-1], rtol=1e-5, atol=1e-5)
        before = alone[len(prompt) - 1 : len(prompt) + len(answer) - 1]  # the value before each token, not after it
        torch.testing.assert_close(values[s, : len(answer)], before, rtol=1e-5, atol=1e-5)
        if answer:  # the broken twin: the value after the token, which already knows it
            after = alone[len(prompt) : len(prompt) + len(answer)]
            assert not torch.allclose(values[s, : len(answer)], after, rtol=1e-3)


@BOTH
def test_packed_extras_come_back_as_they_were(model, prompts, found):
    answers = Answers(prompts, found, SHAPE)
    padded = torch.where(answers.mask, torch.randn(answers.mask.shape, generator=torch.Generator().manual_seed(2)), 0.0)
    for order in (None, list(range(len(answers.rows)))[::-1]):
        batches = answers.batches({"advantages": padded}, order)
        (back,) = answers.per_token(batches, lambda batch: (batch.extra["advantages"],))
        torch.testing.assert_close(back, padded, rtol=0, atol=0)
        for batch in batches:
            assert tuple(batch.labels.shape) == (2, 16)  # one shape, however few rows are left
            assert not batch.extra["advantages"][batch.labels == -100].any()
        assert sum(batch.num_targets for batch in batches) == int(answers.mask.sum())


@BOTH
def test_ratio_is_one_whatever_the_packing(model, prompts, found):
    """PPO's ratios start at 1 although the update packs its rows in another order than the old log-probabilities'."""
    answers = Answers(prompts, found, SHAPE)
    old, _ = answer_logprobs(model, answers, answers.batches(), 1.0, nullcontext)
    new, _ = answer_logprobs(model, answers, answers.batches(order=shuffled_rows(len(answers.rows), 7)), 1.0, nullcontext)
    torch.testing.assert_close((new - old).exp()[answers.mask], torch.ones(int(answers.mask.sum())), rtol=1e-5, atol=1e-5)
    warm, _ = answer_logprobs(model, answers, answers.batches(), 0.7, nullcontext)  # the broken twin: temperature on one side
    assert not torch.allclose((warm - old).exp()[answers.mask], torch.ones(int(answers.mask.sum())), rtol=1e-2)


def test_answers_to_one_prompt_share_its_positions_and_nothing_else(model):
    answers = Answers(SHARED_PROMPTS, SHARED_ANSWERS, SHAPE)
    held = sum(int((batch.segment_ids > 0).sum()) for batch in answers.batches())
    assert held == answers.num_tokens < sum(len(p) + len(a) for p, a in zip(SHARED_PROMPTS, SHARED_ANSWERS, strict=True))
    expected = gradient(model, Answers(SHARED_PROMPTS, SHARED_ANSWERS, RowShape(3000, 1, 0)))  # rows too long for sharing
    torch.testing.assert_close(gradient(model, answers), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    wrong = gradient(model, answers, lambda ids: torch.where(ids > 0, 1, 0))  # the broken twin: all of a row in one segment
    assert not torch.allclose(wrong, expected, rtol=1e-2)


def gradient(model, answers, segments=lambda ids: ids):
    """Of the answers' summed log-probability, all parameters in one vector."""
    model.zero_grad()
    for batch in answers.batches():
        logits = model.logits(model(batch.input_ids, batch.position_ids, segments(batch.segment_ids)))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="sum").backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_penalty_for_an_answer_that_never_stopped():
    scores = torch.tensor([1.5, 1.5, -1.0])
    stopped = torch.tensor([True, False, False])
    assert penalised_scores(scores, stopped, 2.0).tolist() == [1.5, -2.0, -3.0]


def test_shuffled_rows_is_a_permutation_of_the_seed_alone():
    assert sorted(shuffled_rows(9, 5)) == list(range(9)) and shuffled_rows(9, 5) == shuffled_rows(9, 5) != shuffled_rows(9, 6)
